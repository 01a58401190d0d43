"""Unit tests, a mock executor and the real executor give one result, which CI compares between executors.

Hint: the log of `compare` has the result of each layer.
"""

import re

import pytest
from airflow_client.client import DagRunApi

from labs.comparison import RESULT
from stacks.catalogue import LABS

DAG = "35_05_03_testing_across_executors"
ORDERS = {"1001": 301.27, "1002": 433.21, "1003": 502.22}
TOTAL = 1236.7
MATRIX = ["local", "celery", "kubernetes", "edge"]

ALONE = r"""
unset $(env | sed -n 's/^\(AIRFLOW__[A-Z0-9_]*\)=.*/\1/p')
export AIRFLOW_HOME=$(mktemp -d) PYTHONDONTWRITEBYTECODE=1
trap 'rm -rf "$AIRFLOW_HOME"' EXIT
cd "$(dirname "$0")" || exit
export AIRFLOW__CORE__DAGS_FOLDER="$PWD" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__EXECUTOR=NoSuchExecutor
"""
"""Shell: into the folder of the file `$0`, with an Airflow that has nothing of the lab's but its packages.

Whoever asks it for an executor fails.
"""


@pytest.fixture(scope="module")
def layers(run_dag):
    """One run of all layers."""
    return run_dag()


def test_unit_tests_need_no_executor(layers, evidence):
    """All unit tests of the file pass, in a task that hands nothing to an executor."""
    evidence("unit tests passed", layers.xcom("unit_tests"))
    assert layers.xcom("unit_tests") == 3
    assert "3 unit tests passed" in layers.log("unit_tests")


def test_the_unit_tests_run_from_a_shell(lab, services, airflow, evidence):
    """`python -m unittest` with the module passes where no executor can be loaded."""
    file = airflow.wait_for_dag(DAG, file=f"{DAG}.py").file
    scheduler = lab.outputs["services"]["scheduler"][0]["name"]
    command = f"{ALONE} python -m unittest {DAG}"
    done = services.run(scheduler, ["sh", "-c", command, file])
    evidence("python -m unittest", done.stderr.splitlines()[-3:])
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^Ran 3 tests in .*\n\nOK$", done.stderr, re.MULTILINE)


@pytest.mark.needs(section="35.2")  # it takes half a minute and no executor: one lab is enough
def test_the_whole_dag_runs_in_one_process(lab, services, airflow, evidence):
    """`dag.test()` gives the same result with no executor; the lab's Airflow and its scheduler know nothing of it."""
    file = airflow.wait_for_dag(DAG, file=f"{DAG}.py").file
    scheduler = lab.outputs["services"]["scheduler"][0]["name"]

    def runs():
        return airflow.call(DagRunApi(airflow.client).get_dag_runs, dag_id=DAG, limit=1).total_entries

    before = runs()
    command = f"{ALONE} airflow db migrate >&2 && python {DAG}.py"
    done = services.run(scheduler, ["sh", "-c", command, file])
    returned = re.findall(r"Returned value was: (.*?) *\[airflow", done.stdout)
    evidence("returned by the tasks, in one process", returned)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"'total': {TOTAL}, 'heartbeats': [3, 1], 'covered': []" in " ".join(returned[-1:]), done.stdout[-2000:]
    assert re.search(rf"Marking run <DagRun {DAG} .* successful", done.stdout)
    assert runs() == before, "the lab's own Airflow has got a run of it"


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
