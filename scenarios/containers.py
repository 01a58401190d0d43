"""The processes of a container, seen from the machine on which it runs: the kernel has them all in one table.

Source: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from labs.daemon import daemon
from labs.processes import number


def init_of(container: str) -> int:
    """The pid, on this machine, of a container's first process; 0 while it does not run."""
    with daemon() as client:
        return int(client.containers.get(container).attrs["State"]["Pid"])


def namespace(pid: int) -> int | None:
    """What tells the pid namespace of a process from others; None once the process is gone."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def members(init: int) -> dict[int, psutil.Process]:
    """The live processes of the container with that first process, by the pid that each has in there."""
    own, found = namespace(init) if init else None, {}
    for process in psutil.process_iter() if own else ():
        with contextlib.suppress(psutil.Error):
            if namespace(process.pid) == own and process.status() != psutil.STATUS_ZOMBIE:
                found[number(process)] = process
    return found
