"""Ports of this machine to which a service, and whatever it starts, may not connect: the kernel refuses it.

By Landlock, which takes no privilege: the rules belong to the processes, so they are gone with them. They name what is
allowed, so each port that is not closed has one.
Run as `python -m components.platforms.process.closed_ports PORT… -- COMMAND…`, this becomes the command.
Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Collection, Sequence

LIBC = ctypes.CDLL(None, use_errno=True)

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls of Linux, by the same numbers on every architecture that Airflow runs on."""

CONNECT_TCP, OF_A_PORT = 2, 2
"""What is ruled, and by what kind of rule."""

TCP = 4
"""The first version with rules for TCP: that of Linux 6.7."""


def supported() -> bool:
    """Whether this machine's kernel has such rules."""
    return sys.platform == "linux" and int(LIBC.syscall(CREATE_RULESET, None, 0, 1)) >= TCP


def close(ports: Collection[int]) -> None:
    """Have this process, and what it starts from now on, refused when it connects to these TCP ports."""
    rules = _call(CREATE_RULESET, struct.pack("QQ", 0, CONNECT_TCP), 16, 0)
    for port in set(range(65536)).difference(ports):
        _call(ADD_RULE, rules, OF_A_PORT, struct.pack("QQ", CONNECT_TCP, port), 0)
    if LIBC.prctl(38, 1, 0, 0, 0):  # no new privileges, without which only root may restrict itself
        raise OSError(ctypes.get_errno(), "new privileges cannot be given up")
    _call(RESTRICT_SELF, rules, 0)
    os.close(rules)


def _call(number: int, *arguments: int | bytes) -> int:
    result = int(LIBC.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"the kernel's call {number} failed")
    return result


def main(arguments: Sequence[str]) -> None:
    split = arguments.index("--")
    if supported():
        close([int(port) for port in arguments[:split]])
    command = arguments[split + 1 :]
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    main(sys.argv[1:])
