"""The metadata database stands still (SIGSTOP) for 15 s: it accepts connections and answers nobody. Tasks run and wait.

Airflow's contract: a task never touches the database, the API server does that for it; while it cannot, the task's
reports are not answered, are tried again `[workers] execution_api_retries` times, each for `execution_api_timeout`
seconds, and only `max_failed_heartbeats` "consecutive failed heartbeats" terminate the task. So a pause that is
shorter than all that costs no task, and nothing is executed again. It must also be shorter than `[scheduler]
scheduler_health_check_threshold`: a scheduler that finds its own last heartbeat older than that when the database moves
again takes itself for dead and resets its own tasks, of which some are then executed twice (seen with 20 s here).
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers

Hint: a scheduler that ended over the pause is among the new main processes in the fault's evidence.
"""

import time

import pytest

from scenarios.faulting import late_fails
from scenarios.judge import states

pytestmark = pytest.mark.needs(executor=("LocalExecutor", "CeleryExecutor", "EdgeExecutor"))

PAUSE = 15.0
"""Seconds; the labs' `scheduler_health_check_threshold` is 20, in production it is 30."""


def test_running_and_queued_tasks_survive_the_pause(airflow, faults, executing, executing_log, start_probe, evidence):
    """Every task is executed once, to its end: across the pause or after it."""
    probe = start_probe("probe_executions")
    probe.wait_for_full_slots(executing.slots)

    with faults.frozen("metadata-database") as fault:
        fault.last(PAUSE)
        alive = probe.going_on()
        # a scheduler that ended over the pause waits for the tasks it runs before it starts again
        probe.release()
    back = states(airflow.task_instances(probe.run))
    with late_fails():
        run = airflow.wait(probe.run)

    gave_up = executing_log().count("Too many failed heartbeats")
    evidence("states when the database moved again", back)
    evidence("tasks", probe.account())
    evidence("tasks that gave up after max_failed_heartbeats", gave_up)
    evidence("seconds", {"healthy again": fault.down, "run ended": time.time() - fault.at})
    assert gave_up == 0, f"{gave_up} tasks gave up: a pause of {PAUSE:.0f} s outlasted max_failed_heartbeats"
    assert len(alive) == executing.slots, (
        f"{len(alive)} of {executing.slots} tasks went on while the database stood still"
    )
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}
