"""The API server is restarted, or killed and started again, while tasks run and others are queued.

Airflow's contract: a running task reports to the API server every `[workers] min_heartbeat_interval` seconds, each
report is tried `execution_api_retries` times, and `max_failed_heartbeats` is "the maximum number of consecutive failed
heartbeats before terminating the task instance process". So an outage shorter than that, and than `[scheduler]
task_instance_heartbeat_timeout`, interrupts no task. The latter is 300 s in production, and here too.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers

Hint: how long the API server takes to start is in its log; a slow machine may outlast the tasks' patience.
"""

import time

import pytest

from scenarios.faulting import PATIENT, late_fails
from scenarios.judge import states
from scenarios.probing import reports_fail

pytestmark = pytest.mark.needs(executor=("LocalExecutor", "CeleryExecutor", "EdgeExecutor"))


# beside the reports of tasks, an edge worker asks for its jobs and pushes logs: it has nothing but the API server
@pytest.mark.parametrize(
    "fault", ["stopped", pytest.param("lost", marks=pytest.mark.needs(default_executor="EdgeExecutor"))]
)
def test_running_and_queued_tasks_survive_the_restart(
    fault, lab, airflow, faults, executing, executing_log, start_probe, evidence
):
    """Every task is executed once, to its end: across the outage or after it."""
    if len(lab.outputs["services"]["api-server"]) > 1:
        pytest.skip("needs a lab with one API server; with several, see test_one_api_server_lost")
    slots, said = executing.slots, executing_log
    with lab.reconfigured(PATIENT):
        probe = start_probe("probe_executions")
        probe.wait_for_full_slots(slots)

        with getattr(faults, fault)("api-server") as away:
            noticed = reports_fail(said, slots) - away.at
            alive = probe.going_on()
            assert len(alive) == slots, f"{len(alive)} of {slots} tasks go on while the API server is away"
        back = states(airflow.task_instances(probe.run))
        probe.release()
        with late_fails():
            run = airflow.wait(probe.run)

    account = probe.account()
    gave_up = said().count("Too many failed heartbeats")
    evidence("states when the API server was back", back)
    evidence("tasks", account)
    evidence("tasks that gave up after max_failed_heartbeats", gave_up)
    evidence(
        "seconds after the fault",
        {"noticed by all running tasks": noticed, "healthy again": away.down, "run ended": time.time() - away.at},
    )
    assert gave_up == 0, f"{gave_up} tasks gave up: an outage of {away.down:.0f} s outlasted max_failed_heartbeats"
    for row in account:
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1, 1, 1), (
            f"{row['task']} ended as {row['state']} at try {row['tries']}, "
            f"executed {row['executions started']} times, {row['completed']} to the end\n{airflow.explain(run)}"
        )
    spanned = [e.task for e in probe.executions() if e.ended and e.started < away.at < away.at + away.down < e.ended]
    assert len(spanned) == slots, f"only {spanned} were executed across the whole outage"
