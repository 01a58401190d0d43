"""Finding and ending the processes of a lab by the mark that each carries in its environment.

A process that outlives its parent keeps its environment, so the mark finds what a process table or a pid file
has lost: task processes of a killed scheduler, log servers, pool workers.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from labs.errors import LabError
from labs.waiting import until

LAB_MARK = "AIRFLOW_LAB"
"""Environment variable: the lab's directory."""

SERVICE_MARK = "AIRFLOW_LAB_SERVICE"
"""Environment variable: the name of the service within the lab."""

KEEP_MARKS = "SPT_NOENV"
"""Environment variable that stops setproctitle, which Airflow uses, from writing over the marks.

Source: https://github.com/dvarrazzo/py-setproctitle#environment-variables
"""

GOING_DOWN = "AIRFLOW_LAB_GOING_DOWN"
"""Environment variable of a command that takes a whole lab down, for providers in any process of it."""

SHORT = 2.0
"""Seconds that services get to end in order when all that they could still save is about to be deleted."""


@contextlib.contextmanager
def going_down() -> Iterator[None]:
    """Meanwhile, whoever is asked to end has a short time for it."""
    os.environ[GOING_DOWN] = "1"
    try:
        yield
    finally:
        del os.environ[GOING_DOWN]


def grace(seconds: float) -> float:
    """How long to wait for an end that normally may take so many seconds."""
    return min(seconds, SHORT) if GOING_DOWN in os.environ else seconds


def marks(lab: str, service: str) -> Mapping[str, str]:
    """The environment that marks the processes of a service."""
    return {LAB_MARK: lab, SERVICE_MARK: service, KEEP_MARKS: "1"}


def marked(lab: str, service: str | None = None) -> list[psutil.Process]:
    """Live processes of a lab, or of one of its services; this process and its ancestors are left out."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ() if process.pid not in own else {}
            if environment.get(LAB_MARK) == lab and service in (None, environment.get(SERVICE_MARK)):
                found.append(process)
    return found


def number(process: psutil.Process) -> int:
    """The pid by which a process knows itself: in a container it is another one than on this machine.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html (NSpid)
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return process.pid
    seen = re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)
    return int(seen[1]) if seen else process.pid


def ended(process: psutil.Process) -> bool:
    """Whether it runs no more; psutil also waits until init has noticed, which may take a second."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(processes: Iterable[psutil.Process], *, grace: float = 3.0) -> None:
    """SIGTERM, after `grace` seconds SIGKILL, then proof that they are gone.

    Raises:
        LabError: a process cannot be ended, such as one in an uninterruptible system call.
    """
    remaining = list(processes)
    for kill in (False, True):
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill() if kill else process.terminate()
        deadline = time.monotonic() + (10.0 if kill else grace)
        while remaining and time.monotonic() <= deadline:
            _, alive = psutil.wait_procs(remaining, timeout=0.02)
            remaining = [process for process in alive if not ended(process)]
    if remaining:
        names = ", ".join(f"{process.pid}" for process in remaining)
        raise LabError(f"processes {names} did not end on SIGKILL; see what they wait for with `ps -o stat,wchan -p`")


def end_all(lab: str, *, grace: float = 3.0) -> None:
    """End every process of a lab, also those that appear while others are being ended."""

    def sweep() -> tuple[bool | None, str]:
        found = marked(lab)
        if not found:
            return True, "none left"
        end(found, grace=grace)
        return None, f"{len(found)} ended"

    until(sweep, what=f"all processes of {lab} to end", timeout=60, interval=0.05)


def main() -> None:
    """Kill what an earlier incarnation of a service left: `python -m labs.processes LAB SERVICE`."""
    lab, service = sys.argv[1:]
    end(marked(lab, service), grace=0.0)


if __name__ == "__main__":
    main()
