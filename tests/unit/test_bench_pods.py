"""What `bench pods` makes of times: of a run, its task, the versions of its pod and what containerd said."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from labs.bench_pods import container_starts, medians, parts
from labs.errors import LabError
from labs.runs import Run, TaskInstance
from scenarios.pods import Life, Sighting

EVENTS = """\
2026-01-01 00:00:01.2 +0000 UTC k8s.io /tasks/create {"container_id":"base","bundle":"/run/b","pid":41}
2026-01-01 00:00:01.25 +0000 UTC k8s.io /tasks/start {"container_id":"base","pid":41}
2026-01-01 00:00:02 +0000 UTC k8s.io /tasks/start {"container_id":"other","pid":42}
2026-01-01 00:00:02.000000001 +0000 UTC k8s.io /tasks/exit {"container_id":"base","id":"base","pid":41}
2026-01-01 00:00:03.5 +0000 UTC k8s.io /tasks/st"""

MIDNIGHT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def at(second: float) -> datetime:
    return datetime.fromtimestamp(MIDNIGHT.timestamp() + second, timezone.utc)


RUN = Run("d", "r", "success", queued=at(0.25), started=at(0.5), ended=at(5))
TI = TaskInstance("d", "r", "extract", -1, 2, "success", queued=at(0.5), started=at(3.5), ended=at(4.5))


def life(container: str = "containerd://base") -> Life:
    def seen(second: float, kind: str, node: str, **status: Any) -> Sighting:
        pod = {"metadata": {"name": "d-extract"}, "spec": {"nodeName": node} if node else {}, "status": status}
        return Sighting(at(second).timestamp(), kind, pod)

    ran = {"name": "base", "containerID": container, "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}
    return Life(
        (
            seen(0.75, "ADDED", ""),
            seen(1, "MODIFIED", "worker"),
            seen(2.5, "MODIFIED", "worker", containerStatuses=[ran]),
            seen(6, "DELETED", "worker", containerStatuses=[ran]),
        )
    )


def test_containerd_says_when_a_container_started() -> None:
    start = MIDNIGHT.timestamp()
    assert container_starts(EVENTS) == {"base": start + 1.25, "other": start + 2}
    assert container_starts("") == {}


def test_the_parts_of_a_run_follow_one_another() -> None:
    found = parts(RUN, TI, life(), container_starts(EVENTS))
    #           scheduler, executor, Kubernetes, container, imports, task, reconciliation, whole, pod gone
    assert list(found.values()) == [0.25, 0.25, 0.25, 0.25, 2.25, 1.0, 0.5, 4.75, 1.5]


@pytest.mark.parametrize(
    ("run", "pod", "unseen"),
    [
        (RUN, life("containerd://unheard-of"), "container start"),
        (RUN, life(""), "container start"),
        (replace(RUN, ended=None), life(), "reconciliation, until the run has ended"),
        (RUN, Life(life().sightings[:1]), "Kubernetes, until the pod has a node"),
    ],
)
def test_a_part_that_was_not_seen_is_not_guessed(run: Run, pod: Life, unseen: str) -> None:
    with pytest.raises(LabError, match=f"of pod d-extract was not seen: .*{unseen}"):
        parts(run, TI, pod, container_starts(EVENTS))


def test_medians_of_each_part() -> None:
    assert medians([{"a": 1.0, "b": 9.0}, {"a": 2.0, "b": 7.0}, {"a": 9.0, "b": 8.0}]) == {"a": 2.0, "b": 8.0}
