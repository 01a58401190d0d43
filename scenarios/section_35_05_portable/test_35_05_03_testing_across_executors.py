"""Unit tests, a mock executor and the real executor give one result, which CI compares between executors.

Hint: the log of `compare` has the result of each layer.
"""

import pytest

from labs.comparison import RESULT
from stacks.catalogue import LABS

ORDERS = {"1001": 301.27, "1002": 433.21, "1003": 502.22}
TOTAL = 1236.7
MATRIX = ["local", "celery", "kubernetes", "edge"]


@pytest.fixture(scope="module")
def layers(run_dag):
    """One run of all layers."""
    return run_dag()


def test_unit_tests_need_no_executor(layers, evidence):
    """All unit tests of the file pass, in a task that hands nothing to an executor."""
    evidence("unit tests passed", layers.xcom("unit_tests"))
    assert layers.xcom("unit_tests") == 3
    assert "3 unit tests passed" in layers.log("unit_tests")


def test_the_mock_executor_shows_that_slots_change_no_result(layers, evidence):
    """Three jobs take three heartbeats on one slot and one on three slots, with the same result."""
    found = layers.xcom("mock_executor")
    evidence("mock executor", found)
    assert found["heartbeats"] == [3, 1]
    assert found["total"] == TOTAL, f"the mock executor's total is {found['total']}, not {TOTAL}"


def test_the_real_executor_gives_the_same(layers, lab, evidence):
    """The same logic as a task of this lab's executor gives the total computed here."""
    found, computed = layers.xcom("integration"), round(sum(ORDERS.values()), 2)
    evidence("total", {"executors": lab.executors, "by the task": found, "computed here": computed})
    evidence(RESULT, found)
    assert found == computed == TOTAL, f"the real executor's total is {found}, not {TOTAL}"
    assert layers.xcom("compare")["total"] == TOTAL
    assert f"mock executor: {TOTAL}, real executor: {TOTAL}" in layers.log("compare")


def test_ci_has_a_job_for_each_executor(layers, executor, evidence):
    """The matrix names labs that exist, and this run stands for those of this lab's executor."""
    log, covered = layers.log("ci_matrix"), layers.xcom("ci_matrix")
    evidence("log", [line for line in log.splitlines() if "--verify" in line])
    expected = [name for name in MATRIX if LABS[name].executors[0].endswith(executor)]
    assert covered == expected, f"this run covers {covered}, but {executor} is that of {expected}"
    assert all(f"./lab up {name} --verify" in log for name in MATRIX)
