"""A task gets a pod of its own size where there are pods, and runs as it is everywhere else.

Hint: `executor_config` is decided when the file is parsed, from `[core] executor`.
"""

import pytest

from labs.comparison import RESULT
from stacks.catalogue import class_name


@pytest.fixture(scope="module")
def run(run_dag):
    """One run on whatever executor this lab has."""
    return run_dag()


@pytest.fixture(scope="module")
def names(lab):
    """Class names of the lab's executors."""
    return [class_name(spec) for spec in lab.executors]


def test_the_executors_are_detected(run, names, evidence):
    """The file finds the lab's executors when it is parsed."""
    found = run.xcom("report")
    evidence("executors", {"of the lab": names, "found": found["executors"], "client": found["kubernetes_client"]})
    assert found["executors"] == names, f"found {found['executors']}, but the lab has {names}"


def test_the_config_is_applied_only_where_it_is_read(run, names, evidence):
    """`heavy` has an executor_config when Kubernetes runs tasks here, and none when not; `light` never has."""
    expected = "KubernetesExecutor" in names
    found = {task: run.details(task).executor_config for task in ("light", "heavy", "report")}
    evidence("executor_config", {"expected": expected, **found})
    assert (found["heavy"] != "{}") is expected, (
        f"heavy has the executor_config {found['heavy']}, on {', '.join(names)}"
    )
    assert {found["light"], found["report"]} == {"{}"}
    assert run.xcom("report")["applied"] is expected
    said = "a pod_override" if expected else "{}, the default behaviour"
    assert f"heavy got: {said}" in run.log("report"), "the log does not say what was applied"


def test_the_results_do_not_depend_on_it(run, evidence):
    """Without a pod of its size the task does the same work: both results are the ones computed here."""
    results = run.xcom("report")["results"]
    evidence(RESULT, results)
    assert results == [sum(range(1_000)), sum(range(1_000_000))]


@pytest.mark.needs(default_executor="KubernetesExecutor")
def test_the_pod_is_of_that_size(run, evidence):
    """The Kubernetes half: as the API server stored them, only the pod of `heavy` has other requests."""
    found = {life.task_id: life.spec()["resources"] for life in run.history.lives(run.run)}
    evidence("resources", found)
    assert found["heavy"] == {"requests": {"cpu": "200m", "memory": "384Mi"}, "limits": {"memory": "1Gi"}}
    assert found["light"] == found["report"] != found["heavy"]
