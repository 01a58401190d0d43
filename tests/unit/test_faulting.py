"""The four steps of a fault: none can be left out, and a lab is healed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from labs.airflow import ComponentHealth
from labs.errors import LabError
from labs.runs import TaskInstance
from labs.waiting import WaitTimeout
from scenarios import faulting
from scenarios.faulting import Faults, Incarnation

ADDRESS = "127.0.0.1:8080"


@dataclass
class Lab:
    """A lab of one service, `api`, with a helper process, under a supervision that can be broken."""

    pid: int = 10
    alive: set[int] = field(default_factory=lambda: {10, 11})
    restarts: bool = True
    heals: bool = True
    sweeps: bool = True
    dies: bool = True
    status: str = "healthy"
    stray: list[str] = field(default_factory=list)
    started: int = 0
    silent: bool = False
    mounted: bool = False
    asleep: set[int] = field(default_factory=set)

    def states(self) -> dict[str, str]:
        return {"api": "RUNNING" if self.pid in self.alive else "STOPPED"}

    def incarnation(self, service: str) -> Incarnation:
        pid = self.pid if self.pid in self.alive else 0
        return Incarnation(service, str(pid or ""), (pid, pid + 1) if pid else ())

    def task(self, ti: TaskInstance) -> Incarnation:
        return Incarnation(ti.label, "11", (11,))

    def kill(self, incarnation: Incarnation) -> None:
        main = incarnation.parts[0]
        if self.dies:
            self.alive.discard(main)
        if main == self.pid and self.dies and self.restarts:
            self._spawn()

    def stop(self, service: str) -> None:
        if self.dies:
            self.alive -= {self.pid, self.pid + 1}

    def lose(self, service: str) -> None:
        self.stop(service)

    def freeze(self, service: str) -> Incarnation:
        found = self.incarnation(service)
        self.asleep |= set(found.parts)
        return found

    def thaw(self, service: str) -> None:
        self.asleep -= set(self.incarnation(service).parts) if self.heals else set()

    def awake(self, incarnation: Incarnation) -> list[str]:
        return [f"{pid} something" for pid in incarnation.parts if pid not in self.asleep]

    def start(self, service: str) -> None:
        self.started += 1
        if self.heals:
            self._spawn()

    def _spawn(self) -> None:
        if self.sweeps:
            self.alive.clear()
        self.pid += 10
        self.alive |= {self.pid, self.pid + 1}

    def remains(self, incarnation: Incarnation) -> list[str]:
        return [f"{pid} something" for pid in incarnation.parts if pid in self.alive]

    def strays(self) -> list[str]:
        return self.stray

    def addresses(self, service: str) -> list[str]:
        return [ADDRESS]

    def refused(self, service: str) -> list[str]:
        return [] if self.pid in self.alive else [ADDRESS]

    @contextmanager
    def small_disk(self, folder: Path) -> Iterator[Callable[[], str]]:
        self.mounted = True
        try:
            yield lambda: f"{folder} is full"
        finally:
            self.mounted = False

    @contextmanager
    def cut_off(self, service: str) -> Iterator[Callable[[], str]]:
        self.silent = True
        try:
            yield lambda: f"{service} is silent"
        finally:
            self.silent = not self.heals

    def unwell(self, since: float) -> str:
        return "a site is lost" if self.silent else "api is asleep" if self.asleep else ""

    def health(self) -> dict[str, ComponentHealth]:
        return {"scheduler": ComponentHealth(self.status, datetime.now(timezone.utc))}


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def record() -> dict[str, Any]:
    return {}


@pytest.fixture
def faults(lab: Lab, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Faults:
    real = faulting.until

    def soon(probe: Any, **options: Any) -> Any:
        return real(probe, **{**options, "timeout": 0.1, "interval": 0.01})

    monkeypatch.setattr(faulting, "until", soon)
    return Faults(lab, lab, record.__setitem__, lab.unwell)  # type: ignore[arg-type]


def steps(record: dict[str, Any]) -> list[str]:
    (found,) = record.values()
    return [step["step"] for step in found]


def ti(task_id: str) -> TaskInstance:
    return TaskInstance("dag", "run", task_id, -1, 1, "running", pid=11)


def test_a_killed_service_is_healthy_again_when_the_block_runs(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.killed("api") as fault:
        assert fault.down is not None
        assert lab.pid == 20
    assert steps(record) == ["steady state", "landed", "recovered", "nothing left over"]
    assert "api 10 → 20" in record["fault: api killed"][-1]["proof"]


def test_a_stopped_service_is_down_while_the_block_runs(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.stopped("api") as fault:
        assert fault.down is None
        assert lab.states() == {"api": "STOPPED"}
    assert lab.states() == {"api": "RUNNING"}
    proven = ["steady state", "landed", "still down at the end of the block", "recovered", "nothing left over"]
    assert steps(record) == proven


def test_a_lost_service_is_down_while_the_block_runs(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.lost("api"):
        assert lab.alive == set()
    assert lab.states() == {"api": "RUNNING"}
    assert "api 10 → 20" in record["fault: api lost"][-1]["proof"]


def test_a_frozen_service_lives_on_after_the_block(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.frozen("api"):
        assert lab.asleep == lab.alive == {10, 11}
    assert lab.asleep == set()
    proven = ["steady state", "landed", "still frozen at the end of the block", "recovered", "nothing left over"]
    assert steps(record) == proven
    assert "new main processes: none" in record["fault: api frozen"][-1]["proof"]


def test_a_service_that_stays_frozen_fails(lab: Lab, faults: Faults) -> None:
    lab.heals = False
    with pytest.raises(AssertionError, match="the lab to recover after api frozen; last state: api is asleep"):
        entered(faults.frozen("api"))


def test_a_service_that_does_not_freeze_shows_nothing(lab: Lab, faults: Faults) -> None:
    lab.freeze = lab.incarnation  # type: ignore[method-assign]
    with pytest.raises(LabError, match="api is frozen, but these of its processes are not: 10 something; 11 some"):
        entered(faults.frozen("api"))


def test_a_service_is_cut_off_while_the_block_runs(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.cut_off("api") as fault:
        assert lab.silent
        assert fault.down is None
    assert not lab.silent
    proven = ["steady state", "landed", "still cut off at the end of the block", "recovered", "nothing left over"]
    assert steps(record) == proven


def test_a_disk_is_filled_when_asked_and_is_as_before_afterwards(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.disk_full(Path("logs")) as fill:
        assert lab.mounted
        fill()
    assert not lab.mounted
    assert steps(record) == [
        "steady state",
        "landed",
        "full until the end of the block",
        "recovered",
        "nothing left over",
    ]


def test_a_line_is_mended_whatever_happens_in_the_block(lab: Lab, faults: Faults, record: Any) -> None:
    with pytest.raises(ValueError, match="in the block"), faults.cut_off("api"):
        raise ValueError("in the block")
    assert not lab.silent
    assert steps(record) == ["steady state", "landed", "recovered"]


def test_what_else_is_unwell_keeps_a_lab_from_being_recovered(lab: Lab, faults: Faults) -> None:
    lab.heals = False
    with pytest.raises(AssertionError, match="the lab to recover after api cut off; last state: a site is lost"):
        entered(faults.cut_off("api"))


def test_a_killed_task_process_touches_no_service(lab: Lab, faults: Faults, record: Any) -> None:
    with faults.task_process_killed(ti("work")):
        assert lab.alive == {10}
    assert lab.started == 0
    assert "new main processes: none" in record["fault: task process of work killed"][-1]["proof"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_whatever_happens_in_the_block_the_lab_is_healed(
    lab: Lab, faults: Faults, failure: type[BaseException]
) -> None:
    with pytest.raises(failure), faults.stopped("api"):
        raise failure
    assert lab.states() == {"api": "RUNNING"}


def test_an_unhealthy_lab_is_not_broken_further(lab: Lab, faults: Faults) -> None:
    lab.status = "unhealthy"
    with pytest.raises(WaitTimeout, match="steady state before api killed; last state: scheduler is unhealthy"):
        entered(faults.killed("api"))
    assert lab.alive == {10, 11}


def test_a_fault_that_does_not_land_shows_nothing(lab: Lab, faults: Faults) -> None:
    lab.dies = False
    with pytest.raises(LabError, match="process 10 of api to be gone"):
        entered(faults.killed("api"))


def test_a_stopped_service_that_still_answers_shows_nothing(
    lab: Lab, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "refused", lambda service: [])
    with pytest.raises(LabError, match=f"api is stopped, but something answers on {ADDRESS}"):
        entered(faults.stopped("api"))


def test_a_service_that_comes_back_during_the_block_is_noticed(lab: Lab, faults: Faults) -> None:
    with pytest.raises(LabError, match="something answers"), faults.stopped("api"):
        lab.start("api")


def test_a_heal_that_does_not_heal_fails(lab: Lab, faults: Faults) -> None:
    lab.heals = False
    with pytest.raises(AssertionError, match="the lab to recover after api stopped; last state: api has no new proc"):
        entered(faults.stopped("api"))


def test_a_supervision_that_does_not_restart_fails_and_is_healed(lab: Lab, faults: Faults) -> None:
    lab.restarts = False
    with pytest.raises(AssertionError, match="the lab to recover after api killed"):
        entered(faults.killed("api"))
    assert lab.states() == {"api": "RUNNING"}


def test_old_processes_that_outlive_the_service_fail(lab: Lab, faults: Faults) -> None:
    lab.sweeps = False
    with pytest.raises(AssertionError, match="no old and no stray process after api killed; last state: 11 something"):
        entered(faults.killed("api"))


def test_stray_processes_fail(lab: Lab, faults: Faults) -> None:
    lab.stray = ["99 airflow worker"]
    with pytest.raises(AssertionError, match="99 airflow worker"):
        entered(faults.stopped("api"))


def test_a_service_that_was_not_there_before_fails(lab: Lab, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="the services differ after api stopped"), faults.stopped("api"):
        states = lab.states
        monkeypatch.setattr(lab, "states", lambda: {**states(), "second": "RUNNING"})


def test_the_steps_are_recorded_when_it_goes_wrong_too(lab: Lab, faults: Faults, record: Any) -> None:
    lab.heals = False
    with pytest.raises(AssertionError):
        entered(faults.stopped("api"))
    assert steps(record) == ["steady state", "landed", "still down at the end of the block"]


def entered(fault: Any) -> None:
    """Go through a fault whose block does nothing."""
    with fault:
        pass
