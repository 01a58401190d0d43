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
    pytest.mark.needs(executor=("LocalExecutor", "KubernetesExecutor"), section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

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


@pytest.fixture(scope="module")
def chosen(words, executor):
    """Task → the word that it uses for its executor, and where that leads."""
    pod = ("KubernetesExecutor", "KubernetesExecutor")
    apart = pod if "KubernetesExecutor" in words else ("edge", "EdgeExecutor")
    return {
        **dict.fromkeys(("plan", "collect"), (None, executor)),
        **dict.fromkeys(("quick_1", "quick_2", "quick_3"), ("celery", "CeleryExecutor")),
        **dict.fromkeys(("heavy", "isolated"), apart),
    }


def test_each_task_runs_where_it_chose(selected, executed, chosen, evidence):
    """Airflow recorded each choice, and each executor has the trace of its own tasks."""
    ran_on = executed(selected)
    found = {ti.task_id: (ti.executor, ran_on[ti.task_id]) for ti in selected.instances}
    evidence("tasks", [{"task": task, "executor": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == chosen
    told = {place["task"]: (place["asked"], place["ran_on"]) for place in selected.xcom("collect")["places"]}
    assert told == chosen


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
    """The Kubernetes half: the tasks that want it have a pod each; what is written in one's home goes with it."""
    lives = {life.task_id: life for life in selected.history.lives(selected.run)}
    evidence("pods", [life.row() for life in lives.values()])
    assert set(lives) == {"heavy", "isolated"}
    spec, base = lives["isolated"].first["spec"], lives["isolated"].spec()
    (home,) = [each["value"] for each in base["env"] if each["name"] == "AIRFLOW_HOME"]
    (mount,) = [each["name"] for each in base["volumeMounts"] if each["mountPath"] == home]
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount]
    assert "emptyDir" in volume, f"the home of the isolated task is {volume}"
    assert f"user id {spec['securityContext']['runAsUser']}, AIRFLOW_HOME {home}" in selected.log("isolated")


def test_the_isolated_task_has_another_home(selected, sites, words, evidence):
    """The site runs it as the site's own user, in the site's own home: what its worker has."""
    if "KubernetesExecutor" in words:
        pytest.skip("needs a lab without KubernetesExecutor, where isolated tasks go to a site")
    worker, log = sites.worker("site-a"), selected.log("isolated")
    home, user = worker.environ()["AIRFLOW_HOME"], worker.uids().real
    evidence("the site", {"user": user, "home": home})
    assert f"user id {user}, AIRFLOW_HOME {home}" in log


def test_an_unknown_executor_is_an_import_error(airflow, lab, evidence):
    """A name that is not in the list keeps the whole file out of Airflow, with Airflow's own sentence."""
    if not lab.outputs["paths"]["dags"]:
        pytest.skip("needs a DAG folder that this machine sees; pods of other clusters have none")
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
