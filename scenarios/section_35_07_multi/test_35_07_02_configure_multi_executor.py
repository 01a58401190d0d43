"""Alias, module path and class of an executor lead to the same one; the first entry of the list is the default.

Hint: the log of `read_list` shows the list as a worker reads it, that of `connections` what does not answer.
"""

import pytest

pytestmark = [
    pytest.mark.needs(executor="LocalExecutor", section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

WORDS = {
    "by_default": (None, "LocalExecutor"),
    "LocalExecutor_by_class": ("LocalExecutor", "LocalExecutor"),
    "CeleryExecutor_by_alias": ("celery", "CeleryExecutor"),
    "CeleryExecutor_by_class": ("CeleryExecutor", "CeleryExecutor"),
    "EdgeExecutor_by_alias": ("edge", "EdgeExecutor"),
    "EdgeExecutor_by_path": ("airflow.providers.edge3.executors.EdgeExecutor", "EdgeExecutor"),
    "EdgeExecutor_by_class": ("EdgeExecutor", "EdgeExecutor"),
}
"""Task → the word that it uses for its executor, and where that leads."""


@pytest.fixture(scope="module")
def configured(run_dag):
    """One run."""
    return run_dag()


def test_each_word_leads_to_its_executor(configured, executed, evidence):
    """Whichever word a task uses, the trace is with the executor that the list gives that name to."""
    ran_on = executed(configured)
    found = {task: (configured.one(task).executor, ran_on[task]) for task in WORDS}
    evidence("tasks", [{"task": task, "word": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == WORDS


def test_airflow_records_the_word(configured, evidence):
    """The task instance has the word exactly as it was used: three of them for one executor."""
    edge = [ti for ti in configured.instances if ti.task_id.startswith("EdgeExecutor_by_")]
    words = {ti.executor for ti in edge}
    evidence("words for the edge executor", words)
    assert len(words) == len(edge) == 3
    assert len({ti.hostname for ti in edge}) == 1, "the three words led to different places"


def test_the_list_is_read_in_order(configured, lab, executor, evidence):
    """A worker reads the list of the lab from its environment; the first entry is the default."""
    told, compared = configured.xcom("read_list"), configured.xcom("compare")
    evidence("told", told)
    assert [names["class"] for names in told] == [spec.split(":")[-1].split(".")[-1] for spec in lab.executors]
    assert "(from: env var)" in configured.log("read_list")
    assert compared["default"] == executor
    assert compared["names"] == {str(word): where for word, where in WORDS.values()}


def test_each_executor_has_its_connections(configured, lab, evidence):
    """What the executors need answers, and is where the lab has it; no password is in the log."""
    told, log = configured.xcom("connections"), configured.log("connections")
    addresses = {
        "redis": lab.outputs["services"]["broker"][0]["endpoints"]["redis"],
        "postgresql": lab.outputs["services"]["metadata-database"][0]["endpoints"]["sql"],
        "http": lab.outputs["internal_api_url"].removeprefix("http://"),
    }
    evidence("connections", told)
    assert told == {
        "LocalExecutor": {},
        "CeleryExecutor": {"broker_url": True, "result_backend": True},
        "EdgeExecutor": {"api_url": True},
    }
    for scheme, address in addresses.items():
        lines = [line for line in log.splitlines() if f"{address} answers" in line]
        assert any(scheme in line for line in lines), f"the log says nothing of {scheme} at {address}"
    assert "@" not in log, "the log tells more of a URL than host and port"


@pytest.mark.needs(executor="KubernetesExecutor")
def test_its_class_name_leads_to_a_pod(configured, evidence):
    """The Kubernetes half of the list: the entry leads to pods."""
    ti, told = configured.one("KubernetesExecutor_by_class"), configured.xcom("KubernetesExecutor_by_class")
    evidence("as the task says", told)
    assert (ti.executor, told["ran_on"]) == ("KubernetesExecutor", "KubernetesExecutor")
