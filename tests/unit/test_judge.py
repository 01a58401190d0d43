"""Each judgement holds for data that shows the point, and is shown to be false for data that does not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from labs.runs import TaskInstance
from scenarios import judge

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def ti(
    start: float | None, end: float | None, *, queued: float | None = 0, pid: int | None = 1, state: str = "success"
) -> TaskInstance:
    """A task instance with its times in seconds after noon."""

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else NOON + timedelta(seconds=seconds)

    return TaskInstance(
        "d", "r", "t", -1, 1, state, hostname="vm", pid=pid, queued=at(queued), started=at(start), ended=at(end)
    )


SIDE_BY_SIDE = [ti(0, 10), ti(1, 11), ti(2, 12)]
ONE_BY_ONE = [ti(0, 10), ti(10, 20), ti(20.5, 30)]


def test_overlap() -> None:
    assert judge.overlap(ti(0, 10), ti(4, 20)) == 6
    assert judge.overlap(ti(4, 20), ti(0, 10)) == 6
    assert judge.overlap(ti(0, 10), ti(2, 3)) == 1
    assert judge.overlap(ti(0, 10), ti(10, 20)) == 0
    assert judge.overlap(ti(0, 10), ti(15, 20)) == 0


def test_all_overlap_is_false_when_one_pair_does_not() -> None:
    assert judge.all_overlap(SIDE_BY_SIDE)
    assert not judge.all_overlap([*SIDE_BY_SIDE, ti(11, 12)])
    assert not judge.all_overlap(ONE_BY_ONE)


def test_all_overlap_asks_for_enough_of_it() -> None:
    assert judge.all_overlap(SIDE_BY_SIDE, at_least=7)
    assert not judge.all_overlap(SIDE_BY_SIDE, at_least=8)


def test_all_overlap_shows_nothing_for_fewer_than_two() -> None:
    assert not judge.all_overlap([])
    assert not judge.all_overlap([ti(0, 10)])


def test_max_concurrent() -> None:
    assert judge.max_concurrent(SIDE_BY_SIDE) == 3
    assert judge.max_concurrent(ONE_BY_ONE) == 1
    assert judge.max_concurrent([*ONE_BY_ONE, ti(9.999, 10.001)]) == 2
    assert judge.max_concurrent([]) == 0


def test_peak_weighs_what_runs_at_once() -> None:
    assert judge.peak([(0, 10, 2), (5, 8, 3), (9, 12, 1)]) == 5
    assert judge.peak([(0, 10, 2), (10, 12, 3)]) == 3
    assert judge.peak([]) == 0


def test_sequential() -> None:
    assert judge.sequential(ONE_BY_ONE)
    assert not judge.sequential([*ONE_BY_ONE, ti(29, 31)])
    assert not judge.sequential([ti(0, 10)])
    assert not judge.sequential([])


def test_waits() -> None:
    assert judge.waits([ti(3, 4, queued=1), ti(1, 2, queued=1)]) == [2, 0]


def test_span() -> None:
    assert judge.span(SIDE_BY_SIDE) == 12
    assert judge.span(ONE_BY_ONE) == 30


def test_processes() -> None:
    assert judge.processes([ti(0, 1, pid=5), ti(0, 1, pid=6), ti(2, 3, pid=5)]) == {("vm", 5), ("vm", 6)}


def test_followed() -> None:
    assert judge.followed(ti(0, 10), ti(10, 11))
    assert not judge.followed(ti(0, 10), ti(9.9, 11))
    assert not judge.followed(ti(10, 11), ti(0, 10))


def test_states() -> None:
    assert judge.states([ti(0, 1), ti(None, None, state="queued"), ti(0, 1)]) == {"success": 2, "queued": 1}


@pytest.mark.parametrize("broken", [ti(0, None, state="running"), ti(None, None, state="queued")])
def test_what_has_not_ended_is_never_judged_by_its_times(broken: TaskInstance) -> None:
    for judgement in (judge.intervals, judge.max_concurrent, judge.sequential, judge.all_overlap, judge.span):
        with pytest.raises(ValueError, match=f"t of run r has not run to its end .state {broken.state}"):
            judgement([ti(0, 1), broken])


def test_a_missing_time_or_process_is_never_judged() -> None:
    with pytest.raises(ValueError, match="has not gone from queued to started"):
        judge.waits([ti(None, None)])
    with pytest.raises(ValueError, match="recorded no process"):
        judge.processes([ti(0, 1, pid=None)])


def test_what_did_not_end_once_is_named() -> None:
    good = {"task": "good", "state": "success", "tries": 1, "executions started": 1, "completed": 1}
    again = {**good, "task": "again", "tries": 2}
    caught = {**again, "executions started": 2}
    wrong = [
        {**good, "task": "lost", "state": "failed", "completed": 0},
        {**caught, "task": "twice", "completed": 2},
        {**good, "task": "never", "executions started": 0, "completed": 0},
        {**good, "task": "redelivered", "executions started": 2},
    ]
    assert judge.ended_once([good, again, caught]) == []
    assert judge.ended_once([good, *wrong]) == wrong
