"""Pods of services are deleted under load, one at a time and in pairs: every task ends once.

Airflow's contract: what a lost scheduler had is adopted by the other one; reports of tasks that nobody takes are tried
again; a task that could not be sent to the broker, or whose process gave up, is tried again as its `retries` allow.
Kubernetes': another pod takes the place of a deleted one, with the same claim where it has one.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#stable-storage

Hint: what was tried again is in the evidence; the log of its first try says why.
"""

import time

import pytest

from scenarios.faulting import late_fails
from scenarios.judge import ended_once

pytestmark = pytest.mark.needs(executor="CeleryExecutor", platform="kubernetes", replicas="scheduler")

ALONE = ("scheduler-1", "api-server-1", "broker", "metadata-database", "pgbouncer")

PAIRS = (("scheduler-1", "api-server-1"), ("broker", "pgbouncer"), ("metadata-database", "scheduler-2"))

STEADY = 10
"""Tasks that have begun when the pods are deleted, of 60 that follow each other as fast as the lab can."""


@pytest.mark.parametrize(
    "gone",
    [*((name,) for name in ALONE), *(pytest.param(pair, marks=pytest.mark.long) for pair in PAIRS)],
    ids=" and ".join,
)
def test_every_task_ends_once(gone, lab, airflow, faults, start_probe, evidence):
    """All end successfully; none comes to its end twice, by the count of the tasks themselves."""
    there = {replica["name"] for group in lab.outputs["services"].values() for replica in group}
    if missing := set(gone) - there:
        pytest.skip(f"needs a lab with {', '.join(sorted(missing))}")
    probe = start_probe("probe_load", {"seconds": 0})
    probe.wait_for_executions(STEADY, timeout=60)

    with faults.pod_deleted(*gone) as fault, late_fails():
        run = airflow.wait(probe.run, timeout=300)
    seconds = time.time() - fault.at

    account, done = probe.account(), [each for each in probe.executions() if each.ended]
    begun = min(each.started for each in done)
    evidence("tasks", {"all": len(account), "before the fault": sum(each.ended < fault.at for each in done)})
    evidence("tried again", [row for row in account if row["tries"] > 1])
    evidence("tasks per second, the fault included", len(done) / (max(each.ended for each in done) - begun))
    evidence("seconds after the fault", {"healthy again": fault.down, "all tasks ended": seconds})
    assert any(each.ended < fault.at for each in done) and any(each.started > fault.at for each in done)
    assert run.state == "success", airflow.explain(run)
    assert ended_once(account) == [], "these did not end just once"
