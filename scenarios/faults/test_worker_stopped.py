"""A Celery worker is stopped in order (SIGTERM) while it runs tasks and others wait for it.

Celery's contract: "TERM: warm shutdown, wait for tasks to complete", where "the worker will finish all currently
executing tasks before it actually terminates". What it has not begun stays in the broker, for the next worker.
Source: https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker

Whoever stops it must grant that time: what outlasts the grace of the supervision (`workers.NAME.longest`) is killed,
and then Airflow treats it as in `test_worker_killed`.

Hint: the worker's log says "Warm shutdown", and the supervisord's which signal ended it.
"""

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

SECONDS = 6
"""How long each task works: less than the worker is granted."""


def test_running_tasks_end_and_waiting_ones_wait(lab, airflow, faults, executing, executing_log, start_probe, evidence):
    """What ran came to its end before the worker did; nothing was begun meanwhile; all are executed once."""
    (worker,) = executing.services
    probe = start_probe("probe_executions", {"seconds": SECONDS})
    begun = {each.task for each in probe.wait_for_full_slots(executing.slots)}

    with faults.stopped(worker) as fault:
        down = probe.executions()
        waiting = sum(ti.state == "queued" for ti in airflow.task_instances(probe.run))
    with late_fails():
        run = airflow.wait(probe.run)

    evidence("executed when the worker was down", [vars(each) for each in down])
    evidence("tasks", probe.account())
    evidence("seconds until healthy again", fault.down)
    if lab.platform != "kubernetes":  # a pod takes its log with it
        assert "Warm shutdown" in executing_log(), "the worker was not stopped in order"
    assert {each.task for each in down} == begun, "the worker began tasks after it was told to stop"
    assert all(each.ended for each in down), "a task had not ended when its worker had"
    assert waiting == len(probe.account()) - len(begun) > 0
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}
