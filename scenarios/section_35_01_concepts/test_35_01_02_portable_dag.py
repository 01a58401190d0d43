"""A DAG that names no executor gives the same result on every executor.

Hint: compare the checksum in the log of `load` with the one in another lab.
"""

import hashlib
import json

import pytest

ORDERS = {"1001": 301.27, "1002": 433.21, "1003": 502.22}
SUMMARY = {"orders": 3, "total": 1236.7}
TASKS = ["extract", "transform", "show", "load"]


@pytest.fixture(scope="module")
def portable(run_dag):
    """One run on whatever executor this lab has."""
    return run_dag()


def test_the_result_is_the_same_everywhere(portable, lab, evidence):
    """The checksum of the result is the one computed here, without Airflow."""
    expected = hashlib.sha256(json.dumps(SUMMARY, sort_keys=True).encode()).hexdigest()
    found = portable.xcom("load")["checksum"]
    evidence("checksum", {"executors": lab.executors, "of the DAG": found, "computed here": expected})
    assert found == expected, f"the result's checksum is {found}, not {expected}"
    assert expected in portable.log("load"), "the log does not show the checksum"


def test_no_task_names_an_executor(portable, airflow, evidence):
    """No task has an executor, an executor_config or a queue of its own."""
    details = {task: portable.details(task) for task in TASKS}
    evidence(
        "tasks",
        [
            {"task": task, "executor": ti.executor, "executor_config": ti.executor_config, "queue": ti.queue}
            for task, ti in details.items()
        ],
    )
    for task, ti in details.items():
        assert ti.executor is None, f"{task} names the executor {ti.executor}"
        assert ti.executor_config == "{}", f"{task} has the executor_config {ti.executor_config}"
        assert ti.queue == "default", f"{task} names the queue {ti.queue}"
    assert portable.xcom("load")["executor_specific"] == []


def test_standard_operators_only(portable, evidence):
    """It is made of TaskFlow and standard operators, which every worker has."""
    operators = {task: portable.details(task).operator_name for task in TASKS}
    evidence("operators", operators)
    assert sorted(ti.task_id for ti in portable.instances) == sorted(TASKS)
    assert set(operators.values()) <= {"@task", "BashOperator"}


def test_data_goes_by_xcom(portable, evidence):
    """What one task made reaches the next one as an XCom, whatever machine that runs on."""
    found = {task: portable.xcom(task) for task in TASKS}
    evidence("XComs", found)
    assert found["extract"] == ORDERS
    assert found["transform"] == SUMMARY
    assert found["show"] == "3 orders, 1236.7 in total"
