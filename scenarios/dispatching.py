"""How the scheduler of a lab dispatches tasks, as seen from outside: its processes, pipes, connections and log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from labs.runs import Run, TaskInstance
from scenarios.machine import connections
from scenarios.probing import Execution

STANDARD_STREAMS = ("0", "1", "2")

FINISHED = re.compile(
    r"^(?P<time>\S+)Z .*TaskInstance Finished: .*?task_id=(?P<task>\w+),.*? state=(?P<state>\w+),"
    r".*executor_state=(?P<carried>\w+)"
)
"""What the scheduler logs when it has received the executor's event for a task instance."""

QUEUED = re.compile(r"Setting the following tasks to queued state.*(?:\n\t<.*)+ loc=")
"""What the scheduler logs when it queues task instances: a line for each; the last word says that all are there."""

SENT = re.compile(r"Setting external_executor_id for <TaskInstance: .*")
"""What the scheduler logs when it has noted that an executor sent a task instance on its way: a line for each."""

ADOPTED = re.compile(r"Adopted the following \d+ tasks from a dead executor(?:\n\t<.*)+ loc=")
"""What a scheduler with the CeleryExecutor logs when it adopts task instances: a line for each, likewise."""


@dataclass(frozen=True)
class Look:
    """The scheduler's processes at one moment.

    Attributes:
        workers: LocalExecutor's worker processes.
        waiting: bytes that wait in each pipe which the scheduler shares with all of them.
        scheduler_to: remote addresses to which the scheduler holds connections: the database's.
        workers_to: remote addresses to which workers hold connections of their own, not inherited from the scheduler.
    """

    workers: tuple[int, ...]
    waiting: Mapping[str, int]
    scheduler_to: frozenset[str]
    workers_to: tuple[str, ...]


@dataclass(frozen=True)
class EightTasks:
    """One run of eight equal tasks on fewer slots: while all slots are taken and the others queued, and afterwards.

    Attributes:
        scheduler: pid of its main process.
        idle, full, ended: looks before, during and after.
        during: the task instances while all slots were taken; `after` at their end.
        executions: the executions that had started by the first of these moments.
        queued: tasks that the scheduler's log names as those which it queued.
        ancestors: pids of the parent and grandparent of each task's process.
        events: by task: when the scheduler received the executor's event, epoch seconds, what state it carried, and
            what state the task instance had by then.
    """

    run: Run
    slots: int
    scheduler: int
    idle: Look
    full: Look
    ended: Look
    during: list[TaskInstance]
    after: list[TaskInstance]
    executions: list[Execution]
    queued: frozenset[str]
    ancestors: Mapping[str, tuple[int, int]]
    events: Mapping[str, Mapping[str, Any]]


def look(main: psutil.Process) -> Look:
    """Look at the scheduler's main process and LocalExecutor's workers; what waits is what waits for half a second."""
    workers = [child for child in main.children() if "LocalExecutor" in " ".join(child.cmdline())]
    pipes = _pipes(main)
    shared = set(pipes).intersection(*(_pipes(worker) for worker in workers))
    first = {pipe: _bytes_in(pipes[pipe]) for pipe in shared}
    time.sleep(0.5)
    own = {each for each in connections(main) if each.remote}
    others = [each for worker in workers for each in connections(worker) if each.remote]
    return Look(
        workers=tuple(worker.pid for worker in workers),
        waiting={pipe: min(first[pipe], _bytes_in(pipes[pipe])) for pipe in sorted(shared)},
        scheduler_to=frozenset(each.remote for each in own),
        workers_to=tuple(each.remote for each in others if each not in own),
    )


def _pipes(process: psutil.Process) -> dict[str, Path]:
    found, standard = {}, set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(file.readlink())
            if target.startswith("pipe:"):
                found[target] = file
                standard |= {target} if file.name in STANDARD_STREAMS else set()
    return {target: file for target, file in found.items() if target not in standard}


def _bytes_in(pipe: Path) -> int:
    """Source: https://man7.org/linux/man-pages/man7/pipe.7.html (FIONREAD)."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(descriptor)


def queued_tasks(log: str, run: Run) -> frozenset[str]:
    """The tasks of a run that the scheduler's log says it queued."""
    return _named(QUEUED, log, run)


def _named(blocks: re.Pattern[str], log: str, run: Run) -> frozenset[str]:
    name = re.compile(rf"<TaskInstance: {re.escape(run.dag_id)}\.(\w+) {re.escape(run.run_id)} ")
    return frozenset(task for block in blocks.findall(log) for task in name.findall(block))


def sent_tasks(log: str, run: Run) -> frozenset[str]:
    """The tasks of a run that the scheduler's log says it has noted as sent."""
    return _named(SENT, log, run)


def adopted_tasks(log: str, run: Run) -> frozenset[str]:
    """The tasks of a run that the scheduler's log says it adopted from one that had ended."""
    return _named(ADOPTED, log, run)


def executor_events(log: str, run: Run) -> dict[str, dict[str, Any]]:
    """What the scheduler's log says of each executor event of a run."""
    events: dict[str, dict[str, Any]] = {}
    for line in log.splitlines():
        event = FINISHED.search(line) if run.run_id in line else None
        if event:
            moment = datetime.fromisoformat(event["time"] + "+00:00").timestamp()
            said = {"received": moment, "carried": event["carried"], "task instance was": event["state"]}
            events[event["task"]] = said
    return events
