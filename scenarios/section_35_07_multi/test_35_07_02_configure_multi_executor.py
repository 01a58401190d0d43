"""Alias, module path and class of an executor lead to the same one; the first entry of the list is the default.

Hint: the log of `read_list` shows the list as a worker reads it, that of `connections` what does not answer.
"""

import pytest

from stacks.catalogue import class_name

pytestmark = [
    pytest.mark.needs(executor=("LocalExecutor", "KubernetesExecutor"), section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

ALIASED = {
    "CeleryExecutor_by_alias": ("celery", "CeleryExecutor"),
    "EdgeExecutor_by_alias": ("edge", "EdgeExecutor"),
    "EdgeExecutor_by_path": ("airflow.providers.edge3.executors.EdgeExecutor", "EdgeExecutor"),
    "EdgeExecutor_by_class": ("EdgeExecutor", "EdgeExecutor"),
}
"""Task → the word that it uses for its executor, and where that leads, beside the classes that Airflow knows."""


@pytest.fixture(scope="module")
def leads(words, executor):
    """The same of every task: those that name no executor, a class that Airflow knows, or one of these."""
    own = {f"{name}_by_class": (name, name) for name in words if name != "EdgeExecutor"}
    return {"by_default": (None, executor), **own, **ALIASED}


@pytest.fixture(scope="module")
def configured(run_dag):
    """One run."""
    return run_dag()


def test_each_word_leads_to_its_executor(configured, executed, leads, evidence):
    """Whichever word a task uses, the trace is with the executor that the list gives that name to."""
    ran_on = executed(configured)
    found = {task: (configured.one(task).executor, ran_on[task]) for task in leads}
    evidence("tasks", [{"task": task, "word": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == leads


def test_airflow_records_the_word(configured, evidence):
    """The task instance has the word exactly as it was used: three of them for one executor."""
    edge = [ti for ti in configured.instances if ti.task_id.startswith("EdgeExecutor_by_")]
    words = {ti.executor for ti in edge}
    evidence("words for the edge executor", words)
    assert len(words) == len(edge) == 3
    assert len({ti.hostname for ti in edge}) == 1, "the three words led to different places"


def test_the_list_is_read_in_order(configured, lab, executor, leads, evidence):
    """A worker reads the list of the lab from its environment; the first entry is the default."""
    told, compared = configured.xcom("read_list"), configured.xcom("compare")
    evidence("told", told)
    assert [names["class"] for names in told] == [class_name(spec) for spec in lab.executors]
    assert "(from: env var)" in configured.log("read_list")
    assert compared["default"] == executor
    assert compared["names"] == {str(word): where for word, where in leads.values()}


def test_each_executor_has_its_connections(configured, lab, words, evidence):
    """What the executors need answers, and is where the lab has it; no password is in the log."""
    told, log = configured.xcom("connections"), configured.log("connections")
    addresses = {
        "redis": lab.outputs["services"]["broker"][0]["endpoints"]["redis"],
        "postgresql": lab.outputs["services"]["metadata-database"][0]["endpoints"]["sql"],
        "http": lab.outputs["internal_api_url"].removeprefix("http://"),
    }
    evidence("connections", told)
    needs = {"CeleryExecutor": {"broker_url": True, "result_backend": True}, "EdgeExecutor": {"api_url": True}}
    assert told == {name: needs.get(name, {}) for name in words}
    for scheme, address in addresses.items():
        lines = [line for line in log.splitlines() if f"{address} answers" in line]
        assert any(scheme in line for line in lines), f"the log says nothing of {scheme} at {address}"
    assert "@" not in log, "the log tells more of a URL than host and port"


@pytest.mark.needs(executor="KubernetesExecutor")
def test_its_class_name_leads_to_a_pod(configured, evidence):
    """The Kubernetes half of the list: the entry leads to a pod, and none of the other words does."""
    (life,) = configured.history.lives(configured.run)
    told = configured.xcom(life.task_id)
    evidence("pod", life.row())
    assert life.task_id == "KubernetesExecutor_by_class"
    assert (life.name, "KubernetesExecutor") == (configured.one(life.task_id).hostname, told["ran_on"])
