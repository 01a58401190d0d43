"""Several executors side by side: one task on each, in surroundings of its own.

Hint: every component needs the same `[core] executor`; `lab status` shows whether worker and site run.
"""

import psutil
import pytest

from scenarios.sites import own_users

pytestmark = [
    pytest.mark.needs(executor="LocalExecutor", section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

WORDS = {"LocalExecutor": "LocalExecutor", "CeleryExecutor": "celery", "EdgeExecutor": "edge"}
"""Executor → what a task writes to have it."""

AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", "worker", "edge-worker")
"""Services that are started with an executor list."""


@pytest.fixture(scope="module")
def toured(run_dag):
    """One run."""
    return run_dag()


def test_the_list_is_the_same_everywhere(lab, services, toured, evidence):
    """Every component was started with the same list; the tasks read it in the same order."""
    environments = {
        replica["name"]: psutil.Process(int(services.incarnation(replica["name"]).id)).environ()
        for role in AIRFLOW
        for replica in lab.outputs["services"][role]
    }
    lists = {name: environment["AIRFLOW__CORE__EXECUTOR"] for name, environment in environments.items()}
    evidence("[core] executor", lists)
    assert set(lists.values()) == {",".join(lab.executors)}
    assert toured.xcom("overview")["executors"] == WORDS


def test_each_executor_runs_its_task(toured, executed, evidence):
    """Each task has a trace with the executor that it asked for, and with no other."""
    ran_on = executed(toured)
    evidence("executed by", ran_on)
    for executor, word in WORDS.items():
        ti, told = toured.one(f"on_{executor}"), toured.xcom(f"on_{executor}")
        assert ran_on[ti.task_id] == told["ran_on"] == executor
        assert ti.executor == told["asked"] == word, f"Airflow recorded {ti.executor!r} for {ti.task_id}"
        assert (ti.hostname, ti.pid) == (told["hostname"], told["pid"])


def test_no_name_is_the_first_of_the_list(toured, executed, executor, evidence):
    """Tasks that name no executor run on the first of the list, and Airflow records none for them."""
    ran_on = executed(toured)
    unnamed = {ti.task_id: (ti.executor, ran_on[ti.task_id]) for ti in toured.all("overview", "trade_offs")}
    evidence("tasks without an executor", unnamed)
    assert len(unnamed) == 2
    assert set(unnamed.values()) == {(None, executor)}


def test_the_surroundings_differ(toured, celery, sites, services, lab, evidence):
    """A task has the user and the home of the process that executes it; a site's differ from the others."""
    processes = {
        "LocalExecutor": psutil.Process(int(services.incarnation("scheduler").id)),
        "CeleryExecutor": celery.worker("default-1"),
        "EdgeExecutor": sites.worker("site-a"),
    }
    outside = {
        name: {"user": process.uids().real, "home": process.environ()["AIRFLOW_HOME"]}
        for name, process in processes.items()
    }
    told = {name: {key: toured.xcom(f"on_{name}")[key] for key in ("user", "home")} for name in WORDS}
    evidence("surroundings", [{"executor": name, **row} for name, row in outside.items()])
    assert told == outside
    assert outside["LocalExecutor"] == outside["CeleryExecutor"], "they share a machine and a user here"
    assert outside["EdgeExecutor"]["home"] != outside["LocalExecutor"]["home"]
    if own_users(lab.platform):
        assert outside["EdgeExecutor"]["user"] != outside["LocalExecutor"]["user"]


def test_the_trade_offs_are_measured(toured, evidence):
    """The table has each executor with the time until its task started; no prize is given for an order."""
    told = toured.xcom("trade_offs")
    evidence("seconds until it started", told["waited"])
    assert told["asked"] == WORDS
    assert told["surroundings"] == 2
    assert set(told["waited"]) == set(WORDS)
    assert all(waited > 0 for waited in told["waited"].values())


@pytest.mark.needs(executor="KubernetesExecutor")
def test_a_pod_runs_its_task(toured, evidence):
    """The Kubernetes half: the task that asks for it runs in a pod."""
    ti, told = toured.one("on_KubernetesExecutor"), toured.xcom("on_KubernetesExecutor")
    evidence("as the task says", told)
    assert (ti.executor, told["ran_on"]) == ("KubernetesExecutor", "KubernetesExecutor")
