"""The broker, Redis, is restarted while tasks run and others wait in it: with what it had on disk, and without.

Airflow's contract: the executor hands a task to the broker once. What a broker with persistence had, it has again.
What one without persistence has lost stays `queued` in Airflow until `[scheduler] task_queued_timeout`, "amount of
time a task can be in the queued state before being retried or set to failed" (600 s in production): then the
scheduler has it sent again. A task that runs needs no broker: it reports to the API server.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler and
https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/

When a worker's connection breaks, what it had not acknowledged goes back to the queue: messages of tasks that still
run are delivered again. Airflow refuses to start them a second time ("Task already running elsewhere, ignoring
redelivered message"); so executions are counted here where they happen.

Hint: the worker's log says when it is connected again; the scheduler's, "Task stuck in queued; will try to requeue".
"""

import time
from collections import Counter

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

QUEUE = "default"
TIMEOUT = {"scheduler.task_queued_timeout": "20", "scheduler.task_queued_timeout_check_interval": "5"}


def test_with_persistence_nothing_is_lost(airflow, faults, celery, executing, executing_log, start_probe, evidence):
    """What waited waits again, what ran goes on, and each is executed once."""
    probe = start_probe("probe_executions")
    across = {each.task for each in probe.wait_for_full_slots(executing.slots)}
    before = {"waiting": celery.waiting(QUEUE)[QUEUE], "with workers": celery.unacknowledged()}

    with faults.stopped("broker") as fault:
        alive = probe.going_on()
    after = {"waiting": celery.waiting(QUEUE)[QUEUE], "with workers": celery.unacknowledged()}
    evidence("messages in the broker", [{"when": "before", **before}, {"when": "after the restart", **after}])
    assert sum(after.values()) >= sum(before.values()), f"the broker lost messages: {before}, then {after}"
    probe.release()
    with late_fails():
        run = airflow.wait(probe.run)

    refused = executing_log().count("Task already running elsewhere")
    evidence("redelivered messages that were refused", refused)
    evidence("tasks", probe.account())
    evidence("seconds", {"healthy again": fault.down, "run ended": time.time() - fault.at})
    assert len(alive) == len(across) == executing.slots, "running tasks ended with the broker"
    assert before["waiting"] > 0
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}


@pytest.mark.needs(platform=("process", "docker"), because="in a cluster its files are a volume's, not this machine's")
def test_without_persistence_lost_tasks_are_sent_again(
    lab, airflow, faults, celery, services, executing, start_probe, service_log, evidence
):
    """What ran goes on; what waited is gone from the broker, is sent again after the time-out, and executed once."""
    with lab.reconfigured(TIMEOUT):
        said = service_log("scheduler")
        probe = start_probe("probe_executions")
        across = {each.task for each in probe.wait_for_full_slots(executing.slots)}
        before = celery.waiting(QUEUE)[QUEUE]

        with faults.stopped("broker") as fault:
            forgotten = services.forget("broker")
            alive = probe.going_on()
        after = celery.waiting(QUEUE)[QUEUE]
        probe.release()
        with late_fails():
            run = airflow.wait(probe.run, timeout=180)
        again = said().count("Task stuck in queued; will try to requeue")

    states = Counter(ti.state for ti in airflow.task_instances(run))
    evidence("files that the broker had", forgotten)
    evidence("messages waiting", {"before": before, "after the restart": after})
    evidence("sent again by the scheduler", again)
    evidence("tasks", probe.account())
    evidence("seconds", {"healthy again": fault.down, "run ended": time.time() - fault.at})
    assert len(alive) == len(across) == executing.slots, "running tasks ended with the broker"
    assert before > 0
    assert forgotten, "the broker had nothing on disk"
    assert after < before, "the broker lost nothing: it has persistence elsewhere"
    assert again >= before - after, f"only {again} of {before - after} were sent again"
    assert states == {"success": 8}, f"{states}\n{airflow.explain(run)}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}
