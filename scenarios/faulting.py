"""Faults: context managers that break one thing of a lab, prove that it broke, and heal it.

Each has four steps, and each step is proven by facts from outside the thing that is broken:

1. steady state: everything is healthy, or nothing is injected;
2. landed: the process is gone, its ports are refused;
3. recovered: a new incarnation is healthy, and every component has sent a heartbeat since;
4. nothing left over: no process of the old incarnation, no stray one, the same services as before.

A fault heals on the way out whatever happened within, Ctrl-C included. That a fault could not be injected shows
nothing of Airflow, so it makes a check *unknown*; that a lab does not recover, or something is left over, fails it.
Sources: https://principlesofchaos.org, https://chaostoolkit.org/reference/concepts/#steady-state-hypothesis
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from labs.airflow import Airflow, AirflowError
from labs.errors import LabError
from labs.runs import TaskInstance
from labs.waiting import WaitTimeout, until
from scenarios.machine import suspend, wait_until_idle


@dataclass(frozen=True)
class Incarnation:
    """One life of a service or of a task's process.

    Attributes:
        id: what tells it from the next one, such as its pid.
        parts: everything that belongs to it, in the platform's own terms; the main one first.
    """

    name: str
    id: str
    parts: tuple[Any, ...]


def frozen_processes(service: str, parts: Callable[[], Sequence[psutil.Process]]) -> Incarnation:
    """SIGSTOP to the processes of a service, once the main one waits for something; what is stopped then.

    Args:
        parts: tells what they are at a moment, the main one first.
    """
    wait_until_idle(service, parts()[0])
    stopped = suspend(service, parts)
    return Incarnation(service, str(stopped[0].pid), tuple(stopped))


class Services(Protocol):
    """What a platform tells of a lab's services, and does to them."""

    def states(self) -> dict[str, str]:
        """Each service, and whether it runs, in the platform's words; `RUNNING` is the good one."""

    def incarnation(self, service: str) -> Incarnation:
        """The present life of a service; its id is "" while it does not run."""

    def task(self, ti: TaskInstance) -> Incarnation:
        """The process that executes a task instance.

        Raises:
            LabError: there is none on this lab's machines.
        """

    def process(self, service: str, number: int) -> psutil.Process:
        """The process, on this machine, that a service knows by that pid.

        Raises:
            NoSuchProcess: the service has none.
        """

    def run(
        self, service: str, command: Sequence[str], *, text: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where a service runs, as its user, with its environment but without the lab's marks.

        Args:
            text: what the command reads from its standard input.
            variables: more of its environment.
        """

    def kill(self, incarnation: Incarnation) -> None:
        """SIGKILL to the main process, and to nothing else."""

    def stop(self, service: str) -> None:
        """Stop a service in order, and wait until it has stopped."""

    def lose(self, service: str) -> None:
        """SIGKILL to all processes of a service, which nobody starts again; wait until it is down."""

    def freeze(self, service: str) -> Incarnation:
        """SIGSTOP to all processes of a service, at a moment when the main one waits for something; what is stopped."""

    def thaw(self, service: str) -> None:
        """SIGCONT to all of them."""

    def awake(self, incarnation: Incarnation) -> list[str]:
        """What of an incarnation is not frozen, in words."""

    def start(self, service: str) -> None:
        """Start a service that is neither running nor about to run."""

    def remains(self, incarnation: Incarnation) -> list[str]:
        """What of an incarnation still lives, in words; the main part first."""

    def strays(self) -> list[str]:
        """What carries the lab's mark but belongs to no service's present incarnation, in words."""

    def host(self, service: str) -> str:
        """The address by which this machine reaches all ports of a service; "" while it does not run."""

    def connection(self, service: str, port: int) -> AbstractContextManager[socket.socket]:
        """A TCP connection from this machine to a port of a running service."""

    def refused(self, service: str) -> list[str]:
        """The addresses of a service on which nothing answers."""

    def addresses(self, service: str) -> list[str]:
        """The addresses of a service."""

    def sockets(self, service: str, port: int | str) -> list[str]:
        """The addresses at which a port of a service appears in the connections of others."""

    def root(self, service: str) -> Path:
        """Where this machine sees the root folder of a running service."""

    def ended(self, service: str) -> int:
        """The exit status of a service's last life."""

    def forget(self, service: str) -> list[str]:
        """Delete what a stopped service keeps on disk: one without persistence would have kept nothing."""

    def small_disk(self, folder: Path) -> AbstractContextManager[Callable[[], str]]:
        """A folder on a small disk of its own meanwhile; gives a function that fills it and says so, with proof.

        Raises:
            LabError: the platform cannot do it, or something could be written to the full disk.
        """

    def cannot_cut_off(self) -> str:
        """What this machine lacks for `cut_off`, as a sentence; "" for nothing."""

    def cut_off(self, service: str) -> AbstractContextManager[Callable[[], str]]:
        """Nothing that a service sends reaches the API server meanwhile; gives a function that says so, with proof.

        Raises:
            LabError: the platform cannot do it, or something came through.
        """


PATIENT = {"scheduler.task_instance_heartbeat_timeout": "300"}
"""As in production: a task whose API server restarts tries to report again after ever longer pauses."""


@contextmanager
def late_fails() -> Iterator[None]:
    """A wait for recovery that reaches its deadline fails the check, instead of leaving it unknown."""
    try:
        yield
    except WaitTimeout as error:
        raise AssertionError(str(error)) from error


@dataclass
class Fault:
    """One fault as it happened.

    Attributes:
        at: when it was injected, epoch seconds.
        since: heartbeats from after this moment count as signs of recovery; 0 when no service was touched.
        down: seconds from `at` until the lab was healthy again; None before.
        before: the services' states before it.
        gone: what it proved to have ended.
        steps: what proves each step, for the report.
    """

    name: str
    at: float = 0.0
    since: float = 0.0
    down: float | None = None
    before: Mapping[str, str] = field(default_factory=dict)
    gone: list[Incarnation] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def prove(self, step: str, proof: str) -> None:
        """Write down what proves a step."""
        seconds = round(time.time() - self.at, 1) if self.at else 0.0
        self.steps.append({"step": step, "proof": proof, "seconds after the fault": seconds})

    def last(self, seconds: float) -> None:
        """Wait until so many seconds have passed since it was injected."""
        until(
            lambda: (True if time.time() > self.at + seconds else None, f"{time.time() - self.at:.0f} s"),
            what=f"{self.name} to have lasted {seconds:.0f} s",
            timeout=seconds + 5,
        )


class Faults:
    """The faults of one lab, one method each.

    Args:
        record: called with a label and the steps of a fault when it is over, whatever came of it.
        unwell: what else is not as it should be, in words; it may take signs of life only from after a moment.

    Attributes:
        recovery: seconds in which a healed lab must be healthy again; services start in about 10 on two idle cores.
    """

    recovery = 90.0

    def __init__(
        self,
        services: Services,
        airflow: Airflow,
        record: Callable[[str, Any], None],
        unwell: Callable[[float], str] = lambda _since: "",
    ) -> None:
        self._services = services
        self._airflow = airflow
        self._record = record
        self._unwell = unwell

    @contextmanager
    def killed(self, service: str) -> Iterator[Fault]:
        """SIGKILL to the main process of a service, as the kernel's out-of-memory killer would.

        The platform's own supervision starts it again; the block runs when the service is healthy again.
        """
        with self._fault(f"{service} killed", service) as fault:
            old = self._services.incarnation(service)
            self._services.kill(old)
            others = self._gone(fault, old)
            fault.since = time.time()
            fault.prove("landed", f"process {old.id} is gone, {len(others)} of the {len(old.parts) - 1} beside it live")
            self._recovered(fault, service)
            self._clean(fault)
            yield fault

    def stopped(self, service: str) -> AbstractContextManager[Fault]:
        """A service that is stopped in order while the block runs, and started again at its end: a restart."""
        return self._down("stopped", [service], self._services.stop)

    def lost(self, *services: str) -> AbstractContextManager[Fault]:
        """Services that are killed with all their processes, as if a machine had died; back at the end of the block."""
        return self._down("lost", services, self._services.lose)

    @contextmanager
    def _down(self, what: str, services: Sequence[str], end: Callable[[str], None]) -> Iterator[Fault]:
        with self._fault(f"{', '.join(services)} {what}", *services) as fault:
            for service in services:
                old = self._services.incarnation(service)
                end(service)
                self._gone(fault, old)
            gone = ", ".join(old.id for old in fault.gone)
            fault.prove("landed", f"processes {gone} are gone; refused: {self._refused(*services)}")
            yield fault
            fault.prove("still down at the end of the block", f"refused: {self._refused(*services)}")

    @contextmanager
    def frozen(self, service: str) -> Iterator[Fault]:
        """A service that does nothing while the block runs, but is there: it keeps its connections and its work."""
        with self._fault(f"{service} frozen") as fault:
            try:
                old = self._services.freeze(service)
                fault.prove("landed", self._asleep(old))
                yield fault
                fault.prove("still frozen at the end of the block", self._asleep(old))
            finally:
                self._services.thaw(service)
                fault.since = time.time()

    def _asleep(self, old: Incarnation) -> str:
        awake = self._services.awake(old)
        if awake:
            raise LabError(f"{old.name} is frozen, but these of its processes are not: {'; '.join(awake)}")
        return f"all {len(old.parts)} processes of {old.name} are stopped"

    @contextmanager
    def cut_off(self, service: str) -> Iterator[Fault]:
        """A service whose line to the API server is dead while the block runs: what it sends vanishes."""
        with self._fault(f"{service} cut off") as fault:
            try:
                with self._services.cut_off(service) as proof:
                    fault.prove("landed", proof())
                    yield fault
                    fault.prove("still cut off at the end of the block", proof())
            finally:
                fault.since = time.time()

    @contextmanager
    def disk_full(self, folder: Path) -> Iterator[Callable[[], None]]:
        """A folder on a small disk of its own while the block runs; gives what fills that disk, now or again."""
        with self._fault(f"disk of {folder.name} full") as fault:
            try:
                with self._services.small_disk(folder) as fill:
                    yield lambda: fault.prove("landed", fill())
                    fault.prove("full until the end of the block", fill())
            finally:
                fault.since = time.time()

    @contextmanager
    def task_process_killed(self, *instances: TaskInstance) -> Iterator[Fault]:
        """SIGKILL to the processes that execute task instances; no service is touched."""
        olds = [self._services.task(ti) for ti in instances]
        with self._fault(f"task process of {', '.join(ti.label for ti in instances)} killed") as fault:
            for old in olds:
                self._services.kill(old)
            for old in olds:
                self._gone(fault, old)
            fault.prove("landed", f"processes {', '.join(old.id for old in olds)} are gone")
            yield fault

    @contextmanager
    def _fault(self, name: str, *services: str) -> Iterator[Fault]:
        """The steps around an injection that touches these services."""
        fault = Fault(name)
        try:
            what = f"the lab to be in steady state before {name}"
            until(lambda: self._steady(0.0), what=what, timeout=self.recovery)
            fault.before = before = self._services.states()
            mains = {other: self._services.incarnation(other).id for other in before}
            fault.prove("steady state", f"{', '.join(before)} run, answer and are healthy")
            fault.at = time.time()
            try:
                yield fault
            finally:
                states = self._services.states()
                for service in services:
                    if states[service] != "RUNNING":
                        fault.since = time.time()
                        self._services.start(service)
                self._recovered(fault, *services)
                self._clean(fault)
            now = {other: self._services.incarnation(other).id for other in before}
            new = ", ".join(f"{other} {mains[other]} → {now[other]}" for other in before if now[other] != mains[other])
            fault.prove("nothing left over", f"no old or stray process; new main processes: {new or 'none'}")
        finally:
            self._record(f"fault: {name}", fault.steps)

    def _recovered(self, fault: Fault, *services: str) -> None:
        def steady() -> tuple[bool | None, str]:
            for service in services:
                if self._services.incarnation(service).id in ("", *(old.id for old in fault.gone)):
                    return None, f"{service} has no new process"
            return self._steady(fault.since)

        with late_fails():
            until(steady, what=f"the lab to recover after {fault.name}", timeout=self.recovery)
        if fault.down is None:
            fault.down = time.time() - fault.at
            since = "; every component sent a heartbeat since" if fault.since else ""
            fault.prove("recovered", f"all services run, answer and are healthy{since}")

    def _clean(self, fault: Fault) -> None:
        def clean() -> tuple[bool | None, str]:
            left = [each for old in fault.gone for each in self._services.remains(old)] + self._services.strays()
            return (None if left else True), "; ".join(dict.fromkeys(left))

        with late_fails():
            until(clean, what=f"no old and no stray process after {fault.name}", timeout=10)
        after = self._services.states()
        assert after == fault.before, f"the services differ after {fault.name}: {after} instead of {fault.before}"

    def _gone(self, fault: Fault, old: Incarnation) -> list[str]:
        """Wait until the main process is gone; returns what else of the incarnation lives at that moment."""

        def probe() -> tuple[list[str] | None, str]:
            living = self._services.remains(old)
            return (None if living and living[0].startswith(f"{old.id} ") else living), "; ".join(living)

        others = until(probe, what=f"process {old.id} of {old.name} to be gone", timeout=30, interval=0.01)
        fault.gone.append(old)
        return others

    def _refused(self, *services: str) -> str:
        found: list[str] = []
        for service in services:
            refused, addresses = self._services.refused(service), self._services.addresses(service)
            if refused != addresses:
                raise LabError(f"{service} is stopped, but something answers on {', '.join(addresses)}")
            found += refused
        return ", ".join(found) or "there is no port"

    def _steady(self, since: float) -> tuple[bool | None, str]:
        """Whether all services run and answer, and every component sent a heartbeat after `since`."""
        states = self._services.states()
        for service, state in states.items():
            if state != "RUNNING":
                return None, f"{service} is {state}"
            if self._services.refused(service):
                return None, f"{service} refuses connections"
        try:
            health = self._airflow.health()
        except AirflowError as error:
            return None, str(error)
        for component, seen in health.items():
            if seen.status != "healthy":
                return None, f"{component} is {seen.status}"
            if seen.heartbeat and seen.heartbeat.timestamp() < since:
                return None, f"the last heartbeat of {component} is {since - seen.heartbeat.timestamp():.0f} s too old"
        unwell = self._unwell(since)
        return (None, unwell) if unwell else (True, "healthy")
