"""The API server is restarted while tasks run and others are queued.

Airflow's contract: a running task reports to the API server every `[workers] min_heartbeat_interval` seconds, each
report is tried `execution_api_retries` times, and `max_failed_heartbeats` is "the maximum number of consecutive failed
heartbeats before terminating the task instance process". So an outage shorter than that interrupts no task.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers

Hint: how long the API server takes to start is in its log; a slow machine may outlast the tasks' patience.
"""

import time

import psutil

from scenarios.judge import states


def test_running_and_queued_tasks_survive_the_restart(lab, airflow, faults, start_probe, service_log, evidence):
    """Every task is executed once, across the outage or after it, except those that gave up by contract."""
    slots = int(lab.outputs["options"]["core.parallelism"])
    said = service_log("scheduler")
    probe = start_probe("probe_executions")
    across = probe.wait_for_full_slots(slots)

    with faults.stopped("api-server") as fault:
        refused = time.time() - fault.at
        alive = [execution.task for execution in across if psutil.pid_exists(execution.pid)]
        assert len(alive) == slots, f"only {alive} of {slots} tasks go on while the API server is away"
    back = states(airflow.task_instances(probe.run))
    probe.release()
    run = airflow.wait(probe.run)

    account = probe.account()
    gave_up = said().count("Too many failed heartbeats")
    evidence("states when the API server was back", back)
    evidence("tasks", account)
    evidence("tasks that gave up after max_failed_heartbeats", gave_up)
    evidence(
        "seconds after the stop",
        {"connections refused": refused, "healthy again": fault.down, "run ended": time.time() - fault.at},
    )
    assert {row["task"]: row["executions started"] for row in account} == {row["task"]: 1 for row in account}, (
        "a task was lost or executed twice"
    )
    failed = [row["task"] for row in account if row["state"] != "success"]
    assert len(failed) == gave_up, (
        f"{', '.join(failed) or 'no task'} failed, though {gave_up} gave up\n{airflow.explain(run)}"
    )
    spanned = [e.task for e in probe.executions() if e.ended and e.started < fault.at < fault.at + fault.down < e.ended]
    assert len(spanned) == slots - gave_up, f"only {spanned} were executed across the whole outage"
