"""A dead line: packets vanish, nothing is refused.

Between an OS user of this machine and one of its ports nftables drops what the user's processes send there, on
connections that exist too; between a pod and all others its node does, which is a container of this machine. The rule
ends by itself after some minutes, so that a verification that was killed leaves no site cut off.
Sources: https://wiki.nftables.org/wiki-nftables/index.php/Sets and https://man7.org/linux/man-pages/man8/iptables.8.html
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from labs.errors import LabError

LASTS = 300
"""Seconds after which the line is mended, whoever has cut it."""

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
"""Tries to connect to a host and a port. A line that is dead may keep it from looking a name up: give an address."""


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


@contextmanager
def cut_in_node(node: str, address: str) -> Iterator[Callable[[], int]]:
    """Nothing that a pod with that address sends to another one arrives while the block runs; gives how many packets
    were dropped so far.

    Args:
        node: the container in which the pod runs. What pods send each other is forwarded there, even on one node.

    Raises:
        LabError: the node is no container of this machine, or cannot do it.
    """
    mark = f"lab-{uuid4().hex[:12]}"  # so that what mends one cut in the end leaves the next one alone
    rule = f"FORWARD -s {address} -m comment --comment {mark} -j DROP"
    # what keeps NetworkPolicies writes the table `filter` anew, and lets existing connections through before the others
    mangle = "iptables -w -t mangle"
    _in_node(node, f"{mangle} -I {rule}")
    try:
        _in_node(node, f"(sleep {LASTS}; {mangle} -D {rule}) >/dev/null 2>&1 &")

        def dropped() -> int:
            return packets(_in_node(node, f"{mangle} -nvxL FORWARD"), mark)

        yield dropped
    finally:
        _in_node(node, f"{mangle} -D {rule} 2>/dev/null || ! {mangle} -nL FORWARD | grep {mark}")


def packets(listed: str, mark: str) -> int:
    """How many packets the rule with that comment has met, as `iptables -nvxL` lists it.

    Raises:
        LabError: it lists no such rule.
    """
    for line in listed.splitlines():
        if mark in line:
            return int(line.split()[0])
    raise LabError(f"the rule {mark} is gone from its node; somebody else has removed it, or {LASTS} s are over")


def _in_node(node: str, script: str) -> str:
    command = ["docker", "exec", "--privileged", node, "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LabError(f"the node {node} cannot cut a line ({said}); only nodes that are containers here can")
    return done.stdout


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
