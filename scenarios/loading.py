"""A steady load: runs of a probe DAG that begin at fixed times, whatever becomes of those before them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from labs.errors import LabError
from scenarios.probing import Execution, ProbeRun

TASKS = 5
"""Of each run of `probe_load`."""


@dataclass
class Load:
    """A load on a lab.

    Attributes:
        runs: those that have begun so far.
        began: epoch seconds; `ended` is None while it goes on.
    """

    runs: list[ProbeRun] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return (self.ended or time.time()) - self.began

    def executions(self) -> list[Execution]:
        """What has been executed so far of all runs, in the order of the starts."""
        found = [each for run in list(self.runs) for each in run.executions()]
        return sorted(found, key=lambda execution: execution.started)

    def all_ended(self) -> tuple[bool | None, str]:
        """Probe of all tasks of the runs that have begun having come to an end."""
        left = TASKS * len(self.runs) - sum(each.ended is not None for each in self.executions())
        return (None if left else True), f"{left} have not"

    def account(self) -> list[dict[str, Any]]:
        """The account of every task of every run."""
        return [{"run": run.run.run_id, **row} for run in self.runs for row in run.account()]


@contextmanager
def steady_load(start: Callable[..., ProbeRun], rate: float) -> Iterator[Load]:
    """So many tasks per second while the block runs.

    Args:
        start: as `probe_runs` gives it; nobody else uses it, or its Airflow, meanwhile.

    Raises:
        LabError: a run could not be started.
    """
    load, over, failed = Load(), threading.Event(), list[Exception]()

    def work() -> None:
        try:
            while not over.wait(load.began + len(load.runs) * TASKS / rate - time.time()):
                load.runs.append(start("probe_load", {"seconds": 0}))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield load
    finally:
        over.set()
        thread.join()
        load.ended = time.time()
    if failed:
        raise LabError(f"the load ended after {len(load.runs)} runs: {failed[0]}") from failed[0]


def pace(executions: Sequence[Execution], since: float, until: float) -> float:
    """Tasks that came to an end per second between two moments."""
    return sum(since <= each.ended < until for each in executions if each.ended) / (until - since)


def standstill(executions: Sequence[Execution], since: float, until: float) -> float:
    """The longest time between two moments in which no task came to an end, in seconds."""
    ends = sorted(each.ended for each in executions if each.ended and since <= each.ended < until)
    return max(after - before for before, after in zip([since, *ends], [*ends, until], strict=True))


def cost(account: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many tasks ended in each way."""
    told = "{state} at try {tries}, executions: {executions started}, of these to the end: {completed}"
    return dict(Counter(told.format_map(row) for row in account))
