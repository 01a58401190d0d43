"""What the services of a lab on the process platform are doing now."""

from __future__ import annotations

import contextlib
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path

import psutil

from components.platforms.process.supervisor import Supervisor
from labs import processes


@dataclass(frozen=True)
class ServiceState:
    """One service.

    Attributes:
        state: supervisord's word (`RUNNING`), or `UNKNOWN` when supervisord does not answer.
        pid: main process, 0 when it does not run.
        uptime: seconds.
        processes: how many processes it has.
        memory: bytes, shared pages counted in proportion (PSS) where the kernel tells, else RSS.
    """

    name: str
    state: str
    pid: int
    uptime: float
    processes: int
    memory: int


def memory(members: list[psutil.Process]) -> int:
    """Memory of several processes in bytes, shared pages counted once (PSS)."""
    total = 0
    for process in members:
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total


def inspect(home: Path, names: list[str]) -> list[ServiceState]:
    """The state of each service, in the order of `names`."""
    supervisor, states = Supervisor(home), []
    for name in names:
        members = processes.marked(str(home), name)
        try:
            info = supervisor.info(name)
        except (OSError, xmlrpc.client.Error):
            info = {"statename": "UNKNOWN", "pid": 0, "start": 0}
        states.append(
            ServiceState(
                name=name,
                state=str(info["statename"]),
                pid=int(info["pid"]),
                uptime=time.time() - info["start"] if info["pid"] else 0.0,
                processes=len(members),
                memory=memory(members),
            )
        )
    return states
