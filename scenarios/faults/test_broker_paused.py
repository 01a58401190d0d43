"""The broker stands still (SIGSTOP) for 30 s: it accepts connections and answers nobody. Tasks run, wait and come.

Airflow's contract: sending a task to the broker may take `[celery] operation_timeout` seconds, and is tried again
`[celery] task_publish_max_retries` times "when failing due to AirflowTaskTimeout error before giving up and marking
Task as failed"; then the task's own `retries` count. So a task that becomes ready during the pause may be failed
without being executed at all; one that the broker had already is executed once.
Source: https://airflow.apache.org/docs/apache-airflow-providers-celery/stable/configurations-ref.html

Hint: the scheduler's log says "Celery Task Timeout Error" for each attempt.
"""

import time

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

PAUSE = 30.0
"""Seconds."""


def test_nothing_is_lost_and_nothing_executed_twice(airflow, faults, executing, start_probe, service_log, evidence):
    """What ran or waited is executed once, whatever the pause; what came meanwhile, once or not at all."""
    said = service_log("scheduler")
    probe = start_probe("probe_executions")
    probe.wait_for_full_slots(executing.slots)

    with faults.frozen("broker") as fault:
        late = start_probe("probe_retries")
        fault.last(PAUSE)
        alive = probe.going_on()
    probe.release()
    late.release()
    with late_fails():
        run = airflow.wait(probe.run)
        airflow.wait(late.run, timeout=180)

    attempts = said().count("Celery Task Timeout Error")
    evidence("attempts to send that timed out", attempts)
    evidence("tasks that ran or waited", probe.account())
    evidence("tasks that came meanwhile", late.account())
    evidence("seconds", {"healthy again": fault.down, "runs ended": time.time() - fault.at})
    assert len(alive) == executing.slots, "running tasks ended with the broker"
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}
    for task, (state, tries, started, completed) in late.outcome().items():
        seen = (state, started, completed)
        assert seen in (("success", 1, 1), ("failed", 0, 0)), f"{task} came to {seen} in {tries} tries"
        assert state == "success" or attempts > 0, f"{task} was failed although no attempt to send it timed out"
