"""A site's worker is killed while it runs two tasks: one has a retry, the other has none.

Airflow's contract: if a task "has not heartbeat in this many seconds" (`[scheduler] task_instance_heartbeat_timeout`),
"the scheduler will mark the associated task instance as failed and will re-schedule the task", as often as its
`retries` allow. A worker's name is free again when the worker counts as lost itself, after five `[edge]
heartbeat_interval`; until then, one that was started in its place is turned away.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler

Hint: the site's log says when a worker was turned away, the scheduler's log when it gave the tasks up.
"""

import pytest

from scenarios.sites import UP

pytestmark = pytest.mark.needs(default_executor="EdgeExecutor")

SITE = "site-a"


def test_the_task_with_a_retry_recovers_and_the_other_fails(lab, airflow, faults, sites, start_probe, evidence):
    """The site registers again, and is given the retry; each task is executed once per try, and by no one else."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    probe = start_probe("probe_retries")
    probe.wait_for_executions(2)
    known = sites.all()[SITE]

    with faults.killed(SITE) as fault:
        back = sites.all()[SITE]
        again = probe.wait_for_executions(3, timeout=timeout + 60)[2]
        probe.release()
        run = airflow.wait(probe.run)

    account = {row["task"]: row for row in probe.account()}
    ended = {ti.task_id: ti for ti in airflow.task_instances(run)}
    noticed = ended["fragile"].ended.timestamp() - fault.at
    evidence("tasks", list(account.values()))
    evidence(
        "seconds after the kill", {"site up again": fault.down, "given up": noticed, "again": again.started - fault.at}
    )
    assert back.state in UP and back.queues == known.queues, f"the site is {back}"
    assert ended["sturdy"].hostname == SITE
    assert noticed > timeout / 2, "the tasks were given up before their heartbeats were missed"

    def shown(task, **expected):
        seen = {key: account[task][key] for key in expected}
        assert seen == expected, f"{task} ended with {seen} instead of {expected}"

    shown("sturdy", **{"state": "success", "tries": 2, "executions started": 2, "completed": 1})
    shown("fragile", **{"state": "failed", "tries": 1, "executions started": 1, "completed": 0})
    assert run.state == "failed", f"a task failed for good, but the run ended as {run.state}"
