"""This machine's processes and ports, as the platforms' services need them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import psutil

from labs.waiting import until

LISTENS = "0A"
"""https://docs.kernel.org/networking/proc_net_tcp.html"""


@dataclass(frozen=True)
class Connection:
    """One TCP socket of a process.

    Attributes:
        remote: `address:port`, "" for a socket that listens.
    """

    local: str
    remote: str

    @property
    def port(self) -> int:
        """The local port."""
        return int(self.local.rpartition(":")[2])


def connections(process: psutil.Process) -> list[Connection]:
    """The TCP sockets of a process, which may be on another network than this one, where psutil does not look.

    Raises:
        NoSuchProcess: it has ended.
    """
    own, found, place = set(), [], Path(f"/proc/{process.pid}")
    try:
        for file in (place / "fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(str(file.readlink()))
        for table in ("tcp", "tcp6"):
            for line in (place / "net" / table).read_text().splitlines()[1:]:
                _, local, remote, state, *_, inode = line.split()[:10]
                if f"socket:[{inode}]" in own:
                    found.append(Connection(_address(local), "" if state == LISTENS else _address(remote)))
    except FileNotFoundError as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return found


def listening(processes: Iterable[psutil.Process]) -> list[int]:
    """The TCP ports on which processes listen; those of them that end meanwhile listen on none."""
    found: set[int] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {each.port for each in connections(process) if not each.remote}
    return sorted(found)


def remotes(processes: Iterable[psutil.Process]) -> dict[str, str]:
    """Of each TCP connection that processes hold, by its own end, the other; those that end meanwhile hold none."""
    found: dict[str, str] = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {each.local: each.remote for each in connections(process) if each.remote}
    return found


def _address(text: str) -> str:
    """
    >>> _address("0100007F:1F90")
    '127.0.0.1:8080'
    """
    number, port = text.split(":")
    raw = b"".join(struct.pack("=I", int(number[at : at + 8], 16)) for at in range(0, len(number), 8))
    if len(raw) == 4:
        return f"{IPv4Address(raw)}:{int(port, 16)}"
    address = IPv6Address(raw)
    return f"{address.ipv4_mapped or address}:{int(port, 16)}"


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_idle(name: str, process: psutil.Process) -> None:
    """Wait until a process waits for something: stopped within a transaction, it would hold the locks of its rows.

    Args:
        name: what the process is called.

    Raises:
        WaitTimeout: it works all the time.
    """
    used: list[Any] = []

    def waiting() -> tuple[bool | None, str]:
        used.append(process.cpu_times())
        return (True if used[-2:-1] == used[-1:] else None), "it works"

    until(waiting, what=f"{name} to wait for something", timeout=30, interval=0.2)


def suspend(name: str, parts: Callable[[], Iterable[psutil.Process]]) -> list[psutil.Process]:
    """Stop processes, the main one first; done when none of them moves.

    Args:
        parts: tells what they are at a moment: until the main one is stopped, some may end and others begin.

    Returns:
        Those that are stopped.

    Raises:
        WaitTimeout: one moves all the time.
    """

    def asleep() -> tuple[list[psutil.Process] | None, str]:
        found = [process for process in parts() if lives(process)]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        awake = moving(found)
        return (None if awake else found), "; ".join(awake)

    return until(asleep, what=f"{name} to stand still", timeout=10, interval=0.01)


def resume(parts: Iterable[psutil.Process]) -> None:
    """Have those that still live go on."""
    for process in parts:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def moving(parts: Sequence[psutil.Process]) -> list[str]:
    """Those that are not stopped, in words."""
    return [told(each) for each in parts if not lives(each) or each.status() != psutil.STATUS_STOPPED]


def told(process: psutil.Process) -> str:
    """A process in words, its pid first."""
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:80].strip()}"
    return f"{process.pid} (gone)"


def ancestors(process: psutil.Process) -> set[int]:
    """The pids above a process."""
    try:
        return {parent.pid for parent in process.parents()}
    except psutil.NoSuchProcess:
        return set()


def keeps(host: str, port: int) -> bool:
    """Whether something takes connections there and keeps them: what publishes a port of a node ends them at once where
    nobody is behind it."""
    try:
        connection = socket.create_connection((host, port), timeout=2)
    except OSError:
        return False
    with connection:
        try:
            return connection.recv(1) != b""
        except TimeoutError:  # it waits for what we have to say
            return True
        except OSError:
            return False


def accepts(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
