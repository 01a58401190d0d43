"""The only scheduler is killed while tasks run and others are queued.

Airflow's contract: "If a Scheduler is restarted, it may take some time for other Schedulers to recognize the
orphaned tasks and restart or fail them." LocalExecutor cannot adopt what a dead scheduler had handed over, so each
such task is reset: it starts again as the next try, whatever its `retries`. So one that was being executed is
executed twice, in part; one that was queued, once.
Source: https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/executor/local.html

With the CeleryExecutor the tasks are with the broker and the workers, and the next scheduler's executor adopts them:
it knows each by its message's id, `external_executor_id`. None starts again, and none is executed twice.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/scheduler.html

Hint: the tasks are reset when the dead scheduler's last heartbeat is `[scheduler] scheduler_health_check_threshold`
old; the check runs every `[scheduler] orphaned_tasks_check_interval`.
"""

import time

import pytest

from labs.waiting import until
from scenarios.dispatching import adopted_tasks
from scenarios.faulting import late_fails
from scenarios.judge import states


@pytest.mark.needs(executor="LocalExecutor")
def test_no_task_is_lost_and_only_interrupted_ones_are_executed_again(lab, airflow, faults, start_probe, evidence):
    """Interrupted tasks are executed again, queued ones once, none is lost; `retries` is not needed."""
    slots = int(lab.outputs["options"]["core.parallelism"])
    probe = start_probe("probe_executions")
    interrupted = {execution.task for execution in probe.wait_for_full_slots(slots)}

    with faults.killed("scheduler") as fault:
        evidence("states when the new scheduler was healthy", states(airflow.task_instances(probe.run)))
        with late_fails():
            executions = probe.wait_for_executions(2 * slots, timeout=90)
            noticed = executions[slots].started - fault.at
            probe.release()
            run = airflow.wait(probe.run)
        recovered = time.time() - fault.at

    account = probe.account()
    evidence("tasks", account)
    evidence(
        "seconds after the kill",
        {"scheduler healthy": fault.down, "first task executed again": noticed, "all tasks successful": recovered},
    )
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    for row in account:
        expected = 2 if row["task"] in interrupted else 1
        assert row["state"] == "success", f"{row['task']} ended as {row['state']}"
        assert row["executions started"] == expected, (
            f"{row['task']} was executed {row['executions started']} times instead of {expected}"
        )
        assert row["completed"] == 1, f"{row['task']} was executed to its end {row['completed']} times"
        assert row["tries"] == 2, f"{row['task']} is at try {row['tries']}: it was not reset"


@pytest.mark.needs(executor="CeleryExecutor", section="35.3")
def test_the_next_scheduler_adopts_them(airflow, faults, executing, start_probe, service_log, evidence):
    """What ran goes on, what waited waits; the next scheduler adopts them all, and each is executed once."""
    said = service_log("scheduler")
    probe = start_probe("probe_executions")
    across = {each.task for each in probe.wait_for_full_slots(executing.slots)}

    with faults.killed("scheduler") as fault, late_fails():
        alive = set(probe.going_on())

        def adopted():
            found = adopted_tasks(said(), probe.run)
            return (found if len(found) == 8 else None), f"adopted are {sorted(found)}"

        found = until(adopted, what="the new scheduler to adopt all tasks", timeout=60)
        noticed = time.time() - fault.at
        probe.release()
        run = airflow.wait(probe.run)

    evidence("tasks", probe.account())
    evidence("adopted by the new scheduler", found)
    evidence("seconds after the kill", {"scheduler healthy": fault.down, "adopted": noticed})
    assert alive == across, f"of {across} only {alive} went on without a scheduler"
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}
