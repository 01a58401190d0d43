"""What a load was, and what it cost, from what its tasks wrote down."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from labs.errors import LabError
from labs.waiting import until
from scenarios.loading import TASKS, cost, pace, standstill, steady_load
from scenarios.probing import Execution


def done(start: float, end: float | None) -> Execution:
    return Execution("work", 1, "zone-a-1", 1, 0, start, end)


EXECUTIONS = [done(0, 1), done(1, 2), done(2, 3), done(3, 8), done(8, 9), done(9, None)]


def test_pace_counts_what_ended_in_between() -> None:
    assert pace(EXECUTIONS, 0, 10) == 0.5
    assert pace(EXECUTIONS, 3, 8) == 0.2
    assert pace(EXECUTIONS, 4, 8) == 0


def test_a_standstill_may_be_at_the_edge() -> None:
    assert standstill(EXECUTIONS, 0, 9) == 5
    assert standstill(EXECUTIONS, 0, 20) == 11
    assert standstill(EXECUTIONS, 3.5, 6) == 2.5


def test_cost_counts_each_way_to_end() -> None:
    row = {"state": "success", "tries": 1, "executions started": 1, "completed": 1}
    again = {**row, "tries": 2, "executions started": 2}
    assert cost([row, again, row]) == {
        "success at try 1, executions: 1, of these to the end: 1": 2,
        "success at try 2, executions: 2, of these to the end: 1": 1,
    }


@dataclass
class Started:
    """What stands for a run: its executions, as if each task ended at once."""

    at: float = field(default_factory=time.time)

    def executions(self) -> list[Execution]:
        return [done(self.at, self.at)] * (TASKS - 1) + [done(self.at, None)]


def test_runs_begin_at_fixed_times() -> None:
    def start(dag_id: str, conf: object) -> Started:
        assert (dag_id, conf) == ("probe_load", {"seconds": 0})
        return Started()

    with steady_load(start, 10 * TASKS) as load:  # type: ignore[arg-type]
        until(lambda: (len(load.runs) > 4 or None, f"{len(load.runs)} runs"), what="five runs", timeout=5)
        assert load.ended is None
    assert load.ended
    assert 0.35 < load.runs[4].at - load.runs[0].at < 0.6
    assert load.all_ended() == (None, f"{len(load.runs)} have not")


def test_a_load_that_could_not_go_on_is_no_load() -> None:
    def refused(_dag_id: str, _conf: object) -> Started:
        raise OSError("nobody answers")

    with pytest.raises(LabError, match="the load ended after 0 runs: nobody answers"), steady_load(refused, 1):  # type: ignore[arg-type]
        pass
