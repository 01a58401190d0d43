"""The processes of two running tasks are killed: one task has a retry, the other has none.

Airflow's contract: a task whose process was killed has failed, and "Airflow can retry a task if it fails": it is
executed once more for each of its `retries`, and without any it stays failed.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/best-practices.html#creating-a-task and
https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html

In a pod the one with a retry is noticed only when `[scheduler] task_instance_heartbeat_timeout` is over: the process
above it takes the state `up_for_retry` for told already, so it says nothing, and its pod ends well.

Hint: the worker process above a task sees at once that it died; compare its lines in the scheduler's log.
"""

import time

from scenarios.faulting import late_fails


def test_the_task_with_a_retry_recovers_and_the_other_fails(airflow, faults, start_probe, evidence):
    """`retries=1` recovers on its second try, `retries=0` fails; each is executed once per try."""
    probe = start_probe("probe_retries")
    probe.wait_for_executions(2)
    running = airflow.task_instances(probe.run)

    with faults.task_process_killed(*running) as fault:
        with late_fails():
            again = probe.wait_for_executions(3, timeout=90)[2]
            probe.release()
            run = airflow.wait(probe.run)
        recovered = time.time() - fault.at

    account = {row["task"]: row for row in probe.account()}
    evidence("tasks", list(account.values()))
    ended = {ti.task_id: ti.ended for ti in airflow.task_instances(run)}
    noticed = ended["fragile"].timestamp() - fault.at
    evidence(
        "seconds after the kill",
        {"the failure recorded": noticed, "executed again": again.started - fault.at, "run ended": recovered},
    )

    def shown(task, **expected):
        seen = {key: account[task][key] for key in expected}
        assert seen == expected, f"{task} ended with {seen} instead of {expected}"

    shown("sturdy", **{"state": "success", "tries": 2, "executions started": 2, "completed": 1})
    shown("fragile", **{"state": "failed", "tries": 1, "executions started": 1, "completed": 0})
    assert run.state == "failed", f"a task failed for good, but the run ended as {run.state}"
