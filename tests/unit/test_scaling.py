"""Curves of workers that become more and fewer: what is paid for, and which looks a report shows."""

from __future__ import annotations

from typing import Any

import pytest

from labs.errors import UsageError
from scenarios import scaling
from scenarios.scaling import Look, Meter, elastic_in, paid_seconds, rows
from stacks.catalogue import LABS
from stacks.configuration import check_extras, configured


def look(at: float, paid: int, **more: int) -> Look:
    return Look(**{"at": at, "waiting": 0, "running": 0, "slots": paid, **more}, paid=paid)  # type: ignore[arg-type]


def test_what_was_there_at_a_look_is_paid_for_until_the_next() -> None:
    assert paid_seconds([look(100, 1), look(110, 3), look(112, 1), look(120, 1)]) == 10 + 6 + 8
    assert paid_seconds([look(100, 5)]) == 0


def test_a_report_shows_where_a_curve_changes() -> None:
    shown = rows([look(100, 1), look(101, 1), look(102, 2), look(103, 2), look(104, 1, waiting=1)])
    assert [(row["at"], row["paid"], row["waiting"]) for row in shown] == [(0, 1, 0), (2, 2, 0), (4, 1, 1)]
    assert len(rows([look(at, at % 2) for at in range(100)], most=10)) == 10


class Lab:
    """A lab by what its outputs say."""

    def __init__(self, platform: str, *extras: str, kind: str = "kind") -> None:
        self.platform = platform
        self.outputs: dict[str, Any] = {"extras": extras}
        self.outputs |= {"cluster": {"kind": kind}} if platform == "kubernetes" else {}


@pytest.mark.parametrize(
    "lab",
    [Lab("process"), Lab("docker"), Lab("kubernetes"), Lab("kubernetes", "metrics-server"), Lab("kubernetes", "keda")],
    ids=vars,
)
def test_each_way_to_grow_is_one_that_the_lab_can_have(lab: Lab) -> None:
    elastic = elastic_in(lab)  # type: ignore[arg-type]
    shaped = configured(LABS["celery"], elastic.shape)
    check_extras(shaped, lab.platform, lab.outputs["extras"])
    group = shaped.workers[scaling.GROUP]
    assert scaling.QUEUE in group.queues and not [
        n for n, g in shaped.workers.items() if n != scaling.GROUP and scaling.QUEUE in g.queues
    ]
    most = max(shaped.bounds(scaling.GROUP)[1], group.slots)
    assert (elastic.most, bool(elastic.bounds)) == (most, bool(shaped.autoscaling))
    if shaped.autoscaling:
        with pytest.raises(UsageError, match=r"which nothing (measures|counts)"):
            check_extras(shaped, lab.platform, [])


def test_where_nothing_is_to_be_seen_nothing_is_judged() -> None:
    with pytest.raises(pytest.skip.Exception, match="needs an autoscaler, or processes"):
        elastic_in(Lab("kubernetes", kind="context"))  # type: ignore[arg-type]


def pod(name: str, *, ready: bool = True, going: bool = False, phase: str = "Running") -> dict[str, Any]:
    metadata = {"name": name, **({"deletionTimestamp": "soon"} if going else {})}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": metadata, "status": {"phase": phase, "conditions": conditions}}


class There:
    """A namespace with pods, and a broker with messages."""

    name = "airflow-t"

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods, self.api = pods, self

    def path(self, kind: str) -> str:
        return kind

    def items(self, _path: str, labelSelector: str) -> list[dict[str, Any]]:
        assert labelSelector.endswith("/service in (compute,compute-1)")
        return list(self.pods)

    def waiting(self, queue: str) -> dict[str, int]:
        return {queue: 4}


def test_a_worker_that_starts_or_ends_is_paid_for_and_takes_nothing() -> None:
    there = There(pod("a"), pod("b", ready=False), pod("c", going=True), pod("d", phase="Failed"))
    seen = Meter(there, there).look()  # type: ignore[arg-type]
    assert (seen.waiting, seen.slots, seen.paid) == (4, 1, 3)
