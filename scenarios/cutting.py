"""A dead line between an OS user of this machine and one of its ports: packets vanish, nothing is refused.

nftables drops what the user's processes send there, on connections that exist too. The rule ends by itself after some
minutes, so that a verification that was killed leaves no site cut off.
Source: https://wiki.nftables.org/wiki-nftables/index.php/Sets
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from labs.errors import LabError

LASTS = 300
"""Seconds after which the kernel itself mends the line."""


def missing() -> str:
    """What this machine lacks for cutting a line, as a sentence; "" for nothing."""
    if os.geteuid() != 0:
        return "needs root: without, all services run as one user, and nobody may drop packets"
    if shutil.which("nft") is None:
        return "needs the command nft: install the package nftables"
    probe = subprocess.run(["nft", "--check", "add", "table", "inet", "lab_probe"], capture_output=True, check=False)
    return f"needs nftables in the kernel: {probe.stderr.decode().strip()}" if probe.returncode else ""


@contextmanager
def cut(user: int, port: int) -> Iterator[Callable[[], int]]:
    """Nothing that `user` sends to `port` arrives while the block runs; gives how many packets were dropped so far.

    Raises:
        LabError: nftables cannot do it.
    """
    table = f"lab_{user}_{port}"
    rules = f"""
        add table inet {table}
        delete table inet {table}
        table inet {table} {{
            set silenced {{
                typeof meta skuid . tcp dport
                flags timeout
                elements = {{ {user} . {port} timeout {LASTS}s }}
            }}
            chain output {{
                type filter hook output priority 0
                meta skuid . tcp dport @silenced counter drop
            }}
        }}
        """
    _nft("-f", "-", text=rules)

    def dropped() -> int:
        listed = json.loads(_nft("-j", "list", "chain", "inet", table, "output"))["nftables"]
        (rule,) = [entry["rule"] for entry in listed if "rule" in entry]
        return int(next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part))

    try:
        yield dropped
    finally:
        _nft("delete", "table", "inet", table)


def connects(user: int, host: str, port: int, timeout: float = 2.0) -> bool:
    """Whether a connection that `user` opens is accepted within `timeout` seconds; refusals are errors."""
    own = os.geteuid()
    if user != own:
        os.seteuid(user)  # a socket belongs to whoever makes it
    try:
        probe = socket.socket()
    finally:
        if user != own:
            os.seteuid(own)
    with probe:
        probe.settimeout(timeout)
        try:
            probe.connect((host, port))
        except TimeoutError:
            return False
    return True


def _nft(*arguments: str, text: str = "") -> str:
    done = subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"nft cannot cut a line ({done.stderr.strip().splitlines()[0]}); try `nft list ruleset`")
    return done.stdout
