"""A DAG runs on any executor when data goes by XCom, files stay in one task, and nothing names an executor.

Hint: `total` gets the data and a path; only the data is of use on another machine.
"""

import pytest

from labs.comparison import RESULT

READINGS = {"north": 3, "south": 4, "west": 5}
TASKS = ["scratch", "total", "announce", "audit"]


@pytest.fixture(scope="module")
def habits(run_dag):
    """One run on whatever executor this lab has."""
    return run_dag()


def test_data_goes_by_xcom(habits, evidence):
    """The total is right, computed by another task than the one that read the data."""
    found, total = habits.xcom("scratch")["readings"], habits.xcom("total")
    evidence("XComs", {"scratch": found, "total": total, "announce": habits.xcom("announce")})
    evidence(RESULT, habits.xcom("announce"))
    assert found == READINGS
    assert total["total"] == sum(READINGS.values()), f"the total is {total['total']}, not {sum(READINGS.values())}"
    assert habits.xcom("announce") == f"total: {sum(READINGS.values())}"
    processes = {(ti.hostname, ti.pid) for ti in map(habits.one, ("scratch", "total"))}  # a pod has pids of its own
    assert len(processes) == 2, f"both ran in {processes}"


def test_files_stay_in_one_task(habits, host, evidence):
    """The folder in which `scratch` worked is gone: no task can come to depend on it."""
    folder = habits.xcom("scratch")["folder"]
    left = host("scheduler").file(folder).exists
    evidence("folder", {"path": folder, "there for the next task": habits.xcom("total")["folder_exists"], "now": left})
    assert not habits.xcom("total")["folder_exists"], f"the next task still found {folder}"
    assert not left, f"{folder} is still there"
    assert f"{folder} exists here: False" in habits.log("total")


def test_nothing_names_an_executor(habits, evidence):
    """No task has an executor, executor_config or queue of its own, and all are of standard operators."""
    details = {task: habits.details(task) for task in TASKS}
    evidence(
        "tasks",
        [
            {"task": t, "operator": ti.operator_name, "executor_config": ti.executor_config, "queue": ti.queue}
            for t, ti in details.items()
        ],
    )
    tied = [t for t, ti in details.items() if (ti.executor, ti.executor_config, ti.queue) != (None, "{}", "default")]
    assert not tied, f"tied to an executor: {', '.join(tied)}"
    assert habits.xcom("audit")["executor_specific"] == []
    assert habits.xcom("audit")["tasks"] == sorted(TASKS) == sorted(ti.task_id for ti in habits.instances)
    assert {ti.operator_name for ti in details.values()} <= {"@task", "BashOperator"}


def test_it_may_be_retried_anywhere(habits, evidence):
    """`scratch` leaves nothing behind that a second try could trip over, so it is allowed two."""
    evidence("retries of scratch", habits.details("scratch").max_tries)
    assert habits.details("scratch").max_tries == 2
