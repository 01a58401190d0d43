"""What all verifiers of the section look at: which executor has a trace of a task where it executes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scenarios.celery import Celery
from scenarios.observing import Observation
from scenarios.sites import Sites

HOSTS = {"LocalExecutor": "scheduler", "CeleryExecutor": "default-1", "EdgeExecutor": "site-a"}
"""Executor → the service that executes its tasks in the lab `multi`, by whose name they go."""


@pytest.fixture(scope="session")
def executed(celery: Celery, sites: Sites) -> Callable[[Observation], dict[str, str]]:
    """`executed(run)`: task → the executor that ran it, by the traces that each leaves on its own side.

    A Celery worker writes what it took into its log, a site's jobs are in the edge executor's table; what has
    neither, but the scheduler's name, was run by the LocalExecutor. Not one may have two of these.
    """

    def executed(run: Observation) -> dict[str, str]:
        traces = [("CeleryExecutor", t.task_id, t.worker) for t in celery.taken(run.run)]
        traces += [("EdgeExecutor", job.task_id, job.worker) for job in sites.jobs(run.run)]
        distributed = {task for _, task, _ in traces}
        traces += [("LocalExecutor", ti.task_id, ti.hostname) for ti in run.instances if ti.task_id not in distributed]
        found = {task: executor for executor, task, _ in traces}
        assert len(traces) == len(found) == len(run.instances), f"not one trace for each task: {sorted(traces)}"
        for executor, task, where in traces:
            assert where == run.one(task).hostname == HOSTS[executor], f"{task} of {executor} has a trace at {where}"
        return found

    return executed
