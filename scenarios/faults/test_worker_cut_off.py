"""A Celery worker is off its network for 30 s, while tasks of its own end: no broker, no result backend, no API server.

Airflow's contract: the supervisor of a task sends again what the API server has not answered ("the maximum number of
retry attempts to the execution API server" is `[workers] execution_api_retries`), and a task is given up only when it
"has not heartbeat" for `[scheduler] task_instance_heartbeat_timeout`: 300 s in production, 120 s here. Celery's: a
worker connects to its broker again (`broker_connection_retry`). So an outage that is shorter costs no task, also where
the broker gives a message, whose end it was not told, to a worker once more.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers
https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry

Hint: the worker's log shows what it sent again, and when it was connected again.
"""

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import states

pytestmark = [
    pytest.mark.needs(executor="CeleryExecutor", section="35.3"),
    pytest.mark.needs(platform="docker", because="it is Docker that takes a worker off its network"),
]

OUTAGE = 30.0
"""Seconds."""


def test_tasks_end_meanwhile_and_each_is_executed_once(lab, airflow, faults, executing, start_probe, evidence):
    """What ran goes on and ends; Airflow learns of it when the line is back, and the worker takes the rest."""
    with lab.reconfigured({"scheduler.task_instance_heartbeat_timeout": "120"}):
        probe = start_probe("probe_executions")
        running = probe.wait_for_full_slots(executing.slots)
        own = [each for each in running if each.service == running[0].service]

        with faults.cut_off(own[0].service) as fault:
            probe.release()
            tasks = {each.task for each in own}

            def ended():
                done = [each for each in probe.executions() if each.task in tasks and each.ended]
                return (done if len(done) == len(own) else None), f"{len(done)} of {len(own)} ended"

            with late_fails():
                done = until(ended, what="the tasks of the worker to end", timeout=OUTAGE)
            fault.last(OUTAGE)
            during = states([ti for ti in airflow.task_instances(probe.run) if ti.task_id in tasks])
        with late_fails():
            run = airflow.wait(probe.run, timeout=180)

    account = probe.account()
    recorded = {ti.task_id: ti.ended.timestamp() for ti in airflow.task_instances(run)}
    evidence("states of its tasks at the end of the outage", during)
    evidence("seconds until the lab was healthy again", fault.down)
    evidence(
        "ends of its tasks, seconds after the cut",
        [
            {"task": e.task, "by its process": e.ended - fault.at, "as recorded": recorded[e.task] - fault.at}
            for e in done
        ],
    )
    evidence("tasks", account)
    assert during == {"running": len(own)}, "Airflow learned of the end while the worker was cut off"
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    for row in account:
        assert row["executions started"] == row["completed"] == row["tries"] == 1, f"{row} was not executed just once"
