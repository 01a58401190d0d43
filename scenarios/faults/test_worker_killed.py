"""A Celery worker is killed while it runs two tasks: one has a retry, the other has none.

Airflow's contract: if a task "has not heartbeat in this many seconds" (`[scheduler] task_instance_heartbeat_timeout`,
300 in production), "the scheduler will mark the associated task instance as failed and will re-schedule the task", as
often as its `retries` allow. Celery's: a worker acknowledges a message after its task (`[celery] task_acks_late`), so
that of a killed worker's task is delivered once more, but not before `visibility_timeout`, here a day; by then the
task instance has long ended, and Airflow refuses to run it again.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler and
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout

Hint: the scheduler's log says "Detected a task instance without a heartbeat" when it gives a task up.
"""

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")


def test_the_task_with_a_retry_recovers_and_the_other_fails(lab, airflow, faults, executing, start_probe, evidence):
    """Each is executed once per try; the worker that takes the killed one's place is given the retry."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    probe = start_probe("probe_retries")
    probe.wait_for_executions(2)
    (worker,) = {ti.hostname for ti in airflow.task_instances(probe.run)} & set(executing.services)

    with faults.killed(worker) as fault, late_fails():
        again = probe.wait_for_executions(3, timeout=timeout + 60)[2]
        probe.release()
        run = airflow.wait(probe.run)

    ended = {ti.task_id: ti for ti in airflow.task_instances(run)}
    noticed = ended["fragile"].ended.timestamp() - fault.at
    evidence("tasks", probe.account())
    evidence(
        "seconds after the kill",
        {"worker up again": fault.down, "given up": noticed, "again": again.started - fault.at},
    )
    assert again.service == worker, f"{again.service} took the retry, but only {worker} serves its queue"
    assert noticed > timeout / 2, "the tasks were given up before their heartbeats were missed"
    assert probe.outcome() == {"sturdy": ("success", 2, 2, 1), "fragile": ("failed", 1, 1, 0)}
    assert run.state == "failed", f"a task failed for good, but the run ended as {run.state}"
