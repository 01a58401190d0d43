"""Each task chooses its executor; dependencies and XComs work across them, and a name not in the list is an error.

Hint: `executor=` is recorded with the task instance; the log of `collect` shows what each task wanted and got.
"""

import tempfile
from pathlib import Path

import pytest

from labs.airflow import AirflowError
from labs.waiting import until
from scenarios.probing import deployed

pytestmark = [
    pytest.mark.needs(executor="LocalExecutor", section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

CHOSEN = {
    "plan": (None, "LocalExecutor"),
    "quick_1": ("celery", "CeleryExecutor"),
    "quick_2": ("celery", "CeleryExecutor"),
    "quick_3": ("celery", "CeleryExecutor"),
    "heavy": ("edge", "EdgeExecutor"),
    "isolated": ("edge", "EdgeExecutor"),
    "collect": (None, "LocalExecutor"),
}
"""Task → the word that it uses for its executor where there is no Kubernetes, and where that leads."""

UNKNOWN = '''"""A task for an executor that no list has."""

from airflow.sdk import dag, task


@dag(dag_id="probe_unknown_executor", schedule=None, tags=["probe"])
def unknown_executor():
    @task(executor="NoSuchExecutor")
    def nowhere():
        """Has nobody to run it."""

    nowhere()


unknown_executor()
'''


@pytest.fixture(scope="module")
def selected(run_dag):
    """One run."""
    return run_dag()


def test_each_task_runs_where_it_chose(selected, executed, evidence):
    """Airflow recorded each choice, and each executor has the trace of its own tasks."""
    ran_on = executed(selected)
    found = {ti.task_id: (ti.executor, ran_on[ti.task_id]) for ti in selected.instances}
    evidence("tasks", [{"task": task, "executor": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == CHOSEN
    told = {place["task"]: (place["asked"], place["ran_on"]) for place in selected.xcom("collect")["places"]}
    assert told == CHOSEN


def test_results_cross_the_executors(selected, evidence):
    """What three executors computed arrives in one task, the same as anywhere."""
    values = selected.xcom("collect")["values"]
    heavy = sum(number * step % 7 for number in (3, 4, 5) for step in range(300_000))
    evidence("values", values)
    assert values == [9, 16, 25, heavy, 12]


def test_what_is_not_configured_falls_back(selected, lab, evidence):
    """Without Kubernetes the tasks that want it go to the next of their wishes, and the log says so."""
    if "KubernetesExecutor" in lab.executors:
        pytest.skip("needs a lab without KubernetesExecutor; nothing falls back here")
    told, log = selected.xcom("collect")["fallbacks"], selected.log("collect")
    evidence("fallbacks", told)
    assert told == {task: {"wanted": "KubernetesExecutor", "given": "EdgeExecutor"} for task in ("heavy", "isolated")}
    assert log.count("KubernetesExecutor is not configured here") == 2


@pytest.mark.needs(executor="KubernetesExecutor")
def test_heavy_and_isolated_are_pods(selected, evidence):
    """The Kubernetes half: where it is configured, the tasks that want it have it."""
    places = {place["task"]: place["ran_on"] for place in selected.xcom("collect")["places"]}
    evidence("ran on", places)
    assert places["heavy"] == places["isolated"] == "KubernetesExecutor"


def test_the_isolated_task_has_another_home(selected, sites, evidence):
    """The site runs it as the site's own user, in the site's own home: what its worker has."""
    worker, log = sites.worker("site-a"), selected.log("isolated")
    home, user = worker.environ()["AIRFLOW_HOME"], worker.uids().real
    evidence("the site", {"user": user, "home": home})
    assert f"user id {user}, AIRFLOW_HOME {home}" in log


def test_an_unknown_executor_is_an_import_error(airflow, lab, evidence):
    """A name that is not in the list keeps the whole file out of Airflow, with Airflow's own sentence."""
    with tempfile.TemporaryDirectory(prefix="unknown_executor_") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "unknown_executor.py")
        file.write_text(UNKNOWN)

        def forgotten():
            left = [each.file for each in airflow.import_errors() if each.file.endswith(file.name)]
            return (None if left else True), f"{left} still there"

        with (
            pytest.raises(AirflowError, match="Airflow cannot import") as refusal,
            deployed(airflow, Path(lab.outputs["paths"]["dags"]), Path(folder)),
        ):
            pytest.fail("Airflow imported a DAG with a task for an executor that it does not have")
        said = str(refusal.value).splitlines()[-1]
        evidence("Airflow says", said)
        assert "UnknownExecutorException" in str(refusal.value)
        assert "Task 'nowhere' specifies executor 'NoSuchExecutor', which is not available" in str(refusal.value)
        until(forgotten, what="Airflow to forget the import error", timeout=90, interval=0.5)
