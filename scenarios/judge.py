"""Judgements over task instances, as pure functions: what the verifiers share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from labs.runs import TaskInstance


def intervals(instances: Iterable[TaskInstance]) -> list[tuple[float, float]]:
    """When each instance ran, as (start, end) in epoch seconds.

    Raises:
        ValueError: one of them has not run to its end: no judgement over times is possible then.
    """
    found = []
    for ti in instances:
        if ti.started is None or ti.ended is None:
            raise ValueError(f"{ti.label} of run {ti.run_id} has not run to its end (state {ti.state})")
        found.append((ti.started.timestamp(), ti.ended.timestamp()))
    return found


def overlap(first: TaskInstance, second: TaskInstance) -> float:
    """Seconds for which two instances ran at the same time; 0 when one followed the other."""
    (a_start, a_end), (b_start, b_end) = intervals([first, second])
    return max(0.0, min(a_end, b_end) - max(a_start, b_start))


def all_overlap(instances: Iterable[TaskInstance], at_least: float = 0.0) -> bool:
    """Whether at least two instances ran, and every two of them together for more than `at_least` seconds."""
    ran = list(instances)
    return len(ran) > 1 and all(overlap(a, b) > at_least for a, b in combinations(ran, 2))


def peak(loads: Iterable[tuple[float, float, int]]) -> int:
    """The largest sum of weights at once, from (start, end, weight); what ends as another starts does not count."""
    changes = sorted((t, step) for start, end, weight in loads for t, step in ((start, weight), (end, -weight)))
    running = most = 0
    for _, step in changes:  # at the same moment an end (negative) comes before a start
        running += step
        most = max(most, running)
    return most


def max_concurrent(instances: Iterable[TaskInstance]) -> int:
    """The largest number of instances that ran at once; one that ends as another starts does not count."""
    return peak((start, end, 1) for start, end in intervals(instances))


def sequential(instances: Iterable[TaskInstance]) -> bool:
    """Whether more than one instance ran, and never two at once."""
    ran = list(instances)
    return len(ran) > 1 and max_concurrent(ran) == 1


def waits(instances: Iterable[TaskInstance]) -> list[float]:
    """Seconds from queued to started of each instance, in the given order.

    Raises:
        ValueError: one of them was not queued or has not started.
    """
    found = []
    for ti in instances:
        if ti.queued is None or ti.started is None:
            raise ValueError(f"{ti.label} of run {ti.run_id} has not gone from queued to started ({ti.state})")
        found.append((ti.started - ti.queued).total_seconds())
    return found


def span(instances: Iterable[TaskInstance]) -> float:
    """Seconds from the first start to the last end."""
    ran = intervals(instances)
    return max(end for _, end in ran) - min(start for start, _ in ran)


def states(instances: Iterable[TaskInstance]) -> dict[str, int]:
    """How many instances are in each state."""
    return dict(Counter(ti.state or "none" for ti in instances))


def processes(instances: Iterable[TaskInstance]) -> set[tuple[str, int]]:
    """The distinct processes, as (host, pid), that ran the instances.

    Raises:
        ValueError: one of them recorded no process.
    """
    found = set()
    for ti in instances:
        if not ti.hostname or ti.pid is None:
            raise ValueError(f"{ti.label} of run {ti.run_id} recorded no process (state {ti.state})")
        found.add((ti.hostname, ti.pid))
    return found


def ended_once(account: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Which rows of a probe's account are of tasks that did not end once: lost, done twice, or begun more often than
    they were tried.
    """
    return [
        dict(row)
        for row in account
        if (row["state"], row["completed"]) != ("success", 1) or not 1 <= row["executions started"] <= row["tries"]
    ]


def followed(first: TaskInstance, second: TaskInstance) -> bool:
    """Whether `second` started only after `first` had ended."""
    (_, end), (start, _) = intervals([first, second])
    return start >= end
