"""A Celery worker stands still (SIGSTOP) for longer than heartbeats may stay away, while it runs two tasks.

Airflow's contract: if a task "has not heartbeat in this many seconds" (`[scheduler] task_instance_heartbeat_timeout`),
"the scheduler will mark the associated task instance as failed and will re-schedule the task", as often as its
`retries` allow. When the worker moves again, the API server refuses the heartbeats of the tasks that were given up,
and the worker ends their processes: no task that Airflow has given up comes to its end.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler

Hint: the worker's log says "Server indicated the task shouldn't be running anymore" of each old process.
"""

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")


def test_what_was_given_up_is_not_finished_too(lab, airflow, faults, executing, start_probe, evidence):
    """The old executions end with the pause; the retry is executed once, by the same worker."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    probe = start_probe("probe_retries")
    old = probe.wait_for_executions(2)
    (worker,) = {ti.hostname for ti in airflow.task_instances(probe.run)} & set(executing.services)

    with faults.frozen(worker) as fault:

        def given_up():
            states = {ti.task_id: ti.state for ti in airflow.task_instances(probe.run)}
            return (True if states["fragile"] == "failed" and states["sturdy"] == "queued" else None), f"{states}"

        with late_fails():
            until(given_up, what="both tasks to be given up, and the retry to wait", timeout=timeout + 60)
    with late_fails():
        again = probe.wait_for_executions(3, timeout=60)[2]

        def ended():
            living = [each.pid for each in old if probe.lives(each)]
            return (None if living else True), f"{living} go on"

        until(ended, what="the old processes to be ended", timeout=60)
        probe.release()
        run = airflow.wait(probe.run)

    given = {ti.task_id: ti for ti in airflow.task_instances(run)}["fragile"].ended.timestamp() - fault.at
    evidence("tasks", probe.account())
    evidence(
        "seconds after the pause began",
        {"given up": given, "worker moved again": fault.since - fault.at, "again": again.started - fault.at},
    )
    assert given > timeout / 2, "the tasks were given up before their heartbeats were missed"
    assert again.started > fault.since, "the retry was executed while the only worker of its queue stood still"
    assert probe.outcome() == {"sturdy": ("success", 2, 2, 1), "fragile": ("failed", 1, 1, 0)}
