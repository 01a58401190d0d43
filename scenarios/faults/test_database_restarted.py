"""The metadata database is restarted while tasks run and others are queued.

Airflow's contract: a task never touches the database, the API server does that for it; while it cannot, the task's
reports fail and are tried again as when the API server is away, up to `[workers] max_failed_heartbeats`.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/public-airflow-interface.html and
https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers

A scheduler that needs the database in that time ends, but first waits for the tasks that its LocalExecutor runs, so
nothing is scheduled until the longest of them is over. The tasks here end while the database is still away.

Hint: a scheduler that ended over the outage is among the new main processes in the fault's evidence.
"""

import time

import pytest

from labs.airflow import AirflowError
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import states
from scenarios.probing import reports_fail

pytestmark = pytest.mark.needs(executor=("LocalExecutor", "CeleryExecutor", "EdgeExecutor"))


def test_running_and_queued_tasks_survive_the_restart(airflow, faults, executing, executing_log, start_probe, evidence):
    """Every task is executed once, to its end: across the outage or after it."""
    slots, said = executing.slots, executing_log
    probe = start_probe("probe_executions")
    probe.wait_for_full_slots(slots)

    with faults.stopped("metadata-database") as fault:

        def unhealthy():
            try:
                status = airflow.health()["metadatabase"].status
            except AirflowError as error:
                if error.status:
                    raise
                return "no answer", str(error)  # behind PgBouncer, which keeps its clients waiting
            return (status if status == "unhealthy" else None), status

        told = until(unhealthy, what="the API server to notice that its database is away", timeout=30)
        noticed = time.time() - fault.at
        noticed_by_tasks = reports_fail(said, slots) - fault.at
        alive = probe.going_on()
        assert len(alive) == slots, f"{len(alive)} of {slots} tasks go on while the database is away"
        # a scheduler that ended over the outage waits for the tasks it runs before it starts again
        probe.release()
    back = states(airflow.task_instances(probe.run))
    with late_fails():
        run = airflow.wait(probe.run)

    account = probe.account()
    gave_up = said().count("Too many failed heartbeats")
    evidence("the API server's health meanwhile", told)
    evidence("states when the database was back", back)
    evidence("tasks", account)
    evidence("tasks that gave up after max_failed_heartbeats", gave_up)
    evidence(
        "seconds after the stop",
        {
            "noticed by the API server": noticed,
            "noticed by all running tasks": noticed_by_tasks,
            "healthy again": fault.down,
            "run ended": time.time() - fault.at,
        },
    )
    assert gave_up == 0, f"{gave_up} tasks gave up: an outage of {fault.down:.0f} s outlasted max_failed_heartbeats"
    for row in account:
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1, 1, 1), (
            f"{row['task']} ended as {row['state']} at try {row['tries']}, "
            f"executed {row['executions started']} times, {row['completed']} to the end\n{airflow.explain(run)}"
        )
