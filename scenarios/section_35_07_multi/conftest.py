"""What all verifiers of the section look at: which executor has a trace of a task where it executes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labs.lab import Lab
from scenarios.celery import Celery
from scenarios.observing import Observation
from scenarios.sites import Sites

HOSTS = {"LocalExecutor": "scheduler", "CeleryExecutor": "default-1", "EdgeExecutor": "site-a"}
"""Executor → the service that executes its tasks in the lab `multi`, by whose name they go."""


@pytest.fixture(scope="session")
def words(lab: Lab) -> dict[str, str]:
    """Executor → what the lab's list has for it, in order: its alias, else its class name."""
    return {spec.split(":")[-1].split(".")[-1]: spec.split(":")[0] for spec in lab.executors}


@pytest.fixture(scope="session")
def executed(celery: Celery, sites: Sites, words: dict[str, str]) -> Callable[[Observation], dict[str, str]]:
    """`executed(run)`: task → the executor that ran it, by the traces that each leaves on its own side.

    A Celery worker writes what it took into its log, a site's jobs are in the edge executor's table, the Kubernetes API
    tells of each task's pod; what has none of these, but the scheduler's name, was run by the LocalExecutor. Not one
    may have two of them.
    """

    def executed(run: Observation) -> dict[str, str]:
        traces = [("CeleryExecutor", t.task_id, t.worker) for t in celery.taken(run.run)]
        traces += [("EdgeExecutor", job.task_id, job.worker) for job in sites.jobs(run.run)]
        if run.history:
            traces += [("KubernetesExecutor", life.task_id, life.name) for life in run.history.lives(run.run)]
        distributed = {task for _, task, _ in traces}
        if "LocalExecutor" in words:
            local = [ti for ti in run.instances if ti.task_id not in distributed]
            traces += [("LocalExecutor", ti.task_id, ti.hostname) for ti in local]
        found = {task: executor for executor, task, _ in traces}
        assert len(traces) == len(found) == len(run.instances), f"not one trace for each task: {sorted(traces)}"
        for executor, task, where in traces:
            place = HOSTS.get(executor, where)  # each pod has a name of its own
            assert where == run.one(task).hostname == place, f"{task} of {executor} has a trace at {where}"
        return found

    return executed
