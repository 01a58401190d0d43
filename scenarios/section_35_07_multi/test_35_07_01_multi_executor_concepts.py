"""Several executors side by side: one task on each, in surroundings of its own.

Hint: every component needs the same `[core] executor`; `lab status` shows whether worker and site run.
"""

import psutil
import pytest

from scenarios.sites import own_users

pytestmark = [
    pytest.mark.needs(executor=("LocalExecutor", "KubernetesExecutor"), section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", "worker", "edge-worker")
"""Services that are started with an executor list."""


@pytest.fixture(scope="module")
def toured(run_dag):
    """One run, whose pods have come to rest."""
    return run_dag(settle=True)


def lives(run):
    """The pods of a run; none where there are no pods."""
    return run.history.lives(run.run) if run.history else []


def variables(life):
    """The plain environment of a task's pod, as the API server stored it."""
    return {each["name"]: each.get("value") for each in life.spec()["env"]}


@pytest.mark.needs(local="processes")
def test_the_list_is_the_same_everywhere(lab, services, toured, words, evidence):
    """Every component and pod was started with the same list, and a task reads just what is in it."""
    environments = {
        replica["name"]: psutil.Process(int(services.incarnation(replica["name"]).id)).environ()
        for role in AIRFLOW
        for replica in lab.outputs["services"][role]
    }
    environments |= {f"pod of {life.task_id}": variables(life) for life in lives(toured)}
    lists = {name: environment["AIRFLOW__CORE__EXECUTOR"] for name, environment in environments.items()}
    evidence("[core] executor", lists)
    assert set(lists.values()) == {",".join(lab.executors)}
    assert toured.xcom("overview")["executors"] == words


def test_each_executor_runs_its_task(toured, executed, words, evidence):
    """Each task has a trace with the executor that it asked for, and with no other."""
    ran_on = executed(toured)
    evidence("executed by", ran_on)
    for executor, word in words.items():
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


@pytest.mark.needs(local="processes")
def test_the_surroundings_differ(toured, celery, sites, services, lab, words, evidence):
    """A task has the user and the home of the process or pod that executes it; a site's differ from the others."""
    processes = {"CeleryExecutor": celery.worker("default-1"), "EdgeExecutor": sites.worker("site-a")}
    if "LocalExecutor" in words:
        processes["LocalExecutor"] = psutil.Process(int(services.incarnation("scheduler").id))
    outside = {
        name: {"user": process.uids().real, "home": process.environ()["AIRFLOW_HOME"]}
        for name, process in processes.items()
    }
    for life in lives(toured):
        user = life.first["spec"]["securityContext"]["runAsUser"]
        outside["KubernetesExecutor"] = {"user": user, "home": variables(life)["AIRFLOW_HOME"]}
    told = {name: {key: toured.xcom(f"on_{name}")[key] for key in ("user", "home")} for name in words}
    evidence("surroundings", [{"executor": name, **row} for name, row in outside.items()])
    assert told == outside
    site = outside.pop("EdgeExecutor")
    assert len({tuple(row.values()) for row in outside.values()}) == 1, "the others have the same user and home here"
    assert site["home"] != outside["CeleryExecutor"]["home"]
    if own_users(lab.platform):
        assert site["user"] != outside["CeleryExecutor"]["user"]


def test_the_trade_offs_are_measured(toured, words, evidence):
    """The table has each executor with the time until its task started; no prize is given for an order."""
    told = toured.xcom("trade_offs")
    evidence("seconds until it started", told["waited"])
    assert told["asked"] == words
    assert told["surroundings"] == 2
    assert set(told["waited"]) == set(words)
    assert all(waited > 0 for waited in told["waited"].values())


@pytest.mark.needs(executor="KubernetesExecutor")
def test_a_pod_runs_its_task(toured, evidence):
    """The Kubernetes half: the task that asks for it, and no other, has a pod, which was made for it and ended."""
    (life,) = lives(toured)
    ti, told = toured.one("on_KubernetesExecutor"), toured.xcom("on_KubernetesExecutor")
    evidence("pod", life.row())
    assert (life.task_id, life.name) == (ti.task_id, ti.hostname)
    assert life.phases()[-1] == "Succeeded", f"the pod went through {life.phases()}"
    assert (ti.executor, told["ran_on"]) == ("KubernetesExecutor", "KubernetesExecutor")
