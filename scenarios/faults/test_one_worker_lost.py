"""One Celery worker of two that serve a queue is lost, and stays away, while it runs a task that has a retry.

Airflow's contract: if a task "has not heartbeat in this many seconds" (`[scheduler] task_instance_heartbeat_timeout`,
300 in production), "the scheduler will mark the associated task instance as failed and will re-schedule the task", as
often as its `retries` allow. The retry is a new message in the same queue, for any worker that serves it.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler

Hint: the scheduler's log says "Detected a task instance without a heartbeat" when it gives a task up.
"""

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.10", replicas="worker")


def test_another_worker_executes_the_retry(lab, airflow, faults, start_probe, evidence, claim):
    """While the worker is away, its task is executed again elsewhere; what ran elsewhere goes on."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    probe = start_probe("probe_retries")
    first = {execution.task: execution.service for execution in probe.wait_for_executions(2)}
    worker = first["sturdy"]

    with faults.lost(worker) as fault, late_fails():
        again = probe.wait_for_executions(3, timeout=timeout + 60)[2]
        probe.release()
        airflow.wait(probe.run)

    outcome = probe.outcome()
    numbers = {
        "lost": worker,
        "executed again by": again.service,
        "after (s)": round(again.started - fault.at, 1),
        "of which [scheduler] task_instance_heartbeat_timeout (300 in production)": timeout,
        f"the task without retries, on {first['fragile']}": outcome["fragile"][0],
    }
    evidence("executions", [vars(each) for each in probe.executions()])
    evidence("tasks", probe.account())
    claim(
        "Fault tolerance: if a worker fails, the task can be retried on another worker",
        "seed 001",
        "holds" if (again.task, again.try_number) == ("sturdy", 2) and again.service != worker else "wrong",
        numbers,
    )
    assert again.started - fault.at > timeout / 2, "the task was given up before its heartbeats were missed"
    lone = ("failed", 1, 1, 0) if first["fragile"] == worker else ("success", 1, 1, 1)
    assert outcome == {"sturdy": ("success", 2, 2, 1), "fragile": lone}
