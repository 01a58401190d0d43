"""The metadata database is restarted while tasks run and others are queued.

Airflow's contract: tasks never touch the database, the API server does it for them; while that cannot, a task's
reports fail and are tried again as when the API server is away, up to `[workers] max_failed_heartbeats`. Scheduler
and DAG processor retry what a lost connection interrupted, `[database] max_db_retries` times.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/overview.html and
https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#database

Hint: a scheduler that ended over the outage is among the new main processes in the fault's evidence.
"""

import time

import psutil

from labs.waiting import until
from scenarios.judge import states


def test_running_and_queued_tasks_survive_the_restart(lab, airflow, faults, start_probe, service_log, evidence):
    """Every task is executed once, across the outage or after it, except those that gave up by contract."""
    slots = int(lab.outputs["options"]["core.parallelism"])
    said = service_log("scheduler")
    probe = start_probe("probe_executions")
    across = probe.wait_for_full_slots(slots)

    with faults.stopped("metadata-database") as fault:

        def unhealthy():
            status = airflow.health()["metadatabase"].status
            return (True if status == "unhealthy" else None), status

        until(unhealthy, what="the API server to notice that its database is away", timeout=30)
        noticed = time.time() - fault.at
        alive = [execution.task for execution in across if psutil.pid_exists(execution.pid)]
        assert len(alive) == slots, f"only {alive} of {slots} tasks go on while the database is away"
    back = states(airflow.task_instances(probe.run))
    probe.release()
    run = airflow.wait(probe.run)

    account = probe.account()
    gave_up = said().count("Too many failed heartbeats")
    evidence("states when the database was back", back)
    evidence("tasks", account)
    evidence("tasks that gave up after max_failed_heartbeats", gave_up)
    evidence(
        "seconds after the stop",
        {"noticed by the API server": noticed, "healthy again": fault.down, "run ended": time.time() - fault.at},
    )
    assert {row["task"]: row["executions started"] for row in account} == {row["task"]: 1 for row in account}, (
        "a task was lost or executed twice"
    )
    failed = [row["task"] for row in account if row["state"] != "success"]
    assert len(failed) == gave_up, (
        f"{', '.join(failed) or 'no task'} failed, though {gave_up} gave up\n{airflow.explain(run)}"
    )
