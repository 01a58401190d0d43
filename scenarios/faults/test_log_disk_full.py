"""The disk on which a Celery worker writes the logs of its tasks is full: before they start, and while they run.

Airflow's contract: it is the worker that writes a task's log, below `[logging] base_log_folder`. Where it cannot, the
executor reports the task as failed although it had begun ("finished with state failed, but the task instance's state
attribute is running"): it counts as failed, and is retried as often as its `retries` allow. Of a log that cannot grow
any more the documentation says nothing.
Source: https://airflow.apache.org/docs/apache-airflow/stable/troubleshooting.html

Hint: the worker's own log, which is on another disk, says "No space left on device".
"""

from pathlib import Path

import pytest

from labs.waiting import until
from scenarios import filling
from scenarios.faulting import late_fails

pytestmark = [
    pytest.mark.needs(executor="CeleryExecutor", section="35.3"),
    pytest.mark.needs(platform="process", because="no container sees a disk that this machine mounts now"),
]

DAG = "probe_logs"


@pytest.fixture
def folder(lab):
    """Where the worker `io-1` writes the logs of the probe."""
    if missing := filling.missing():
        pytest.skip(missing)
    return Path(lab.outputs["paths"]["logs"]) / f"dag_id={DAG}"


def test_a_task_that_cannot_log_is_not_executed(airflow, faults, folder, start_probe, evidence):
    """Its try fails before the task's own code runs; a retry that finds room is executed; other workers go on."""
    with faults.disk_full(folder) as fill:
        fill()
        probe = start_probe(DAG)
        healthy = start_probe("probe_serial", {"seconds": 0})

        def failed():
            states = {ti.task_id: ti.state for ti in airflow.task_instances(probe.run)}
            wanted = {"fragile": "failed", "sturdy": "up_for_retry"}
            return (True if states == wanted else None), f"{states}"

        with late_fails():
            until(failed, what="both tries to fail", timeout=30)
            other = airflow.wait(healthy.run)
        before = probe.account()
    with late_fails():
        probe.release()
        run = airflow.wait(probe.run)

    evidence("tasks while the disk was full", before)
    evidence("tasks in the end", probe.account())
    assert other.state == "success", "a task of another worker did not succeed"
    assert run.state == "failed", f"a task failed for good, but the run ended as {run.state}"
    assert probe.outcome() == {"sturdy": ("success", 2, 1, 1), "fragile": ("failed", 1, 0, 0)}


def test_a_task_that_runs_already_ends_all_the_same(airflow, faults, folder, start_probe, evidence):
    """What the disk has no room for is lost of the log, not of the task: it ends with success, while there is none."""
    with faults.disk_full(folder) as fill:
        probe = start_probe(DAG)
        probe.wait_for_executions(2)
        fill()
        probe.release()
        with late_fails():
            run = airflow.wait(probe.run)
    evidence("tasks", probe.account())
    assert run.state == "success", f"the run ended as {run.state}"
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}
