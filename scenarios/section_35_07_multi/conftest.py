"""What all verifiers of the section look at: which executor has a trace of a task where it executes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from labs.service_logs import service_logs
from labs.waiting import until
from scenarios.celery import Celery
from scenarios.faulting import late_fails
from scenarios.observing import Observation
from scenarios.sites import Sites

if TYPE_CHECKING:
    from labs.lab import Lab

HOSTS = {"LocalExecutor": "scheduler", "CeleryExecutor": "default-1", "EdgeExecutor": "site-a"}
"""Executor → the service that executes its tasks in the lab `multi`, by whose name they go."""

SUPERVISED = re.compile(r"Workload finished .*\[supervisor\].* workload_id=(\S+)")
"""What the process above a task, with LocalExecutor one of the scheduler's own, logs when the task has ended."""


@pytest.fixture(scope="session")
def executed(lab: Lab, celery: Celery, sites: Sites, words: dict[str, str]) -> Callable[[Observation], dict[str, str]]:
    """`executed(run)`: task → the executor that ran it, by the traces that each leaves on its own side.

    A Celery worker writes what it took into its log, a site's jobs are in the edge executor's table, the Kubernetes API
    tells of each task's pod, and what the LocalExecutor ran was supervised within the scheduler, whose log says so. Not
    one may have two of these, or none.
    """
    scheduler = service_logs(lab.outputs)["scheduler"]

    def supervised(run: Observation, missing: set[str]) -> list[str]:
        """The tasks that the scheduler's own processes ran, once those of `missing` are among them."""
        names = {str(run.details(ti.task_id).id): ti.task_id for ti in run.instances}

        def probe() -> tuple[list[str] | None, str]:
            found = [names[each] for each in SUPERVISED.findall(scheduler.read()) if each in names]
            return (found if missing <= set(found) else None), f"none of {', '.join(sorted(missing - set(found)))}"

        with late_fails():
            return until(probe, what="a trace of each task", timeout=15)

    def executed(run: Observation) -> dict[str, str]:
        traces = [("CeleryExecutor", t.task_id, t.worker) for t in celery.taken(run.run)]
        traces += [("EdgeExecutor", job.task_id, job.worker) for job in sites.jobs(run.run)]
        if run.history:
            traces += [("KubernetesExecutor", life.task_id, life.name) for life in run.history.lives(run.run)]
        if "LocalExecutor" in words:
            missing = {ti.task_id for ti in run.instances} - {task for _, task, _ in traces}
            traces += [("LocalExecutor", task, "scheduler") for task in supervised(run, missing)]
        found = {task: executor for executor, task, _ in traces}
        assert len(traces) == len(found) == len(run.instances), f"not one trace for each task: {sorted(traces)}"
        for executor, task, where in traces:
            place = HOSTS.get(executor, where)  # each pod has a name of its own
            assert where == run.one(task).hostname == place, f"{task} of {executor} has a trace at {where}"
        return found

    return executed
