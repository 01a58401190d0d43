"""Why each pod came to grief, in a learner's words, beside the pod's own; and that a log goes with its pod.

Hint: `kubectl describe pod`; for a pod that is gone, `kubectl get events` for an hour.
"""

import json
import re

import pytest

from scenarios.log_store import kept_logs
from scenarios.pods import cause

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

CAUSES = {"out_of_memory": "memory", "image_missing": "image", "init_fails": "init"}


@pytest.fixture(scope="module")
def ran(run_in_pods):
    """One run, which fails, and every version of its pods."""
    return run_in_pods(state="failed", timeout=300)


def test_each_cause_is_known(ran, evidence):
    """The cause by the pod as the API server stored it, and by its events."""
    found = [{"task": life.task_id, **vars(cause(life, ran.events[life.uid]))} for life in ran.lives]
    evidence("causes", found)
    for life in ran.lives:
        if life.task_id in CAUSES:
            evidence(f"events of {life.name}", ran.told(life))
    for task_id, kind in CAUSES.items():
        kinds = {row["kind"] for row in found if row["task"] == task_id}
        assert kinds == {kind}, f"the pods of {task_id} came to grief by {kinds}, not by {kind}"
        assert ran.seen.one(task_id).state == "failed"


def test_an_image_that_is_missing_is_tried_twice(ran, lab):
    """The executor makes one more pod before the task fails; both are kept, and neither ever ran."""
    retries = int(lab.outputs["options"].get("kubernetes_executor.pod_launch_failure_retries", 1))
    lives = ran.of("image_missing")
    assert len(lives) == 1 + retries
    assert {life.try_number for life in lives} == {1}, "a try of the task was used up"
    assert all(life.phases() == ["Pending"] and not life.gone for life in lives)
    assert any("Failed to pull image" in line or "ErrImagePull" in line for line in ran.told(lives[0]))


def test_an_exception_is_no_trouble_of_the_pod(ran):
    """The task failed, its pod succeeded and is gone."""
    life = ran.one("raises")
    assert ran.seen.one("raises").state == "failed"
    assert life.phases()[-1] == "Succeeded" and life.gone
    assert "a mistake of the task" in ran.log("raises")


def test_memory(ran, evidence):
    """The container's state says OOMKilled; the task had come some way, and was stopped below its limit."""
    life = ran.one("out_of_memory")
    ended = life.ended()
    evidence("base ended", ended)
    taken = [int(found) for found in re.findall(r"(\d+) MiB and counting", ran.log("out_of_memory"))]
    assert ended["reason"] == "OOMKilled"
    assert life.spec()["resources"]["limits"]["memory"] == "384Mi"
    assert taken and max(taken) < 384, f"it could take {max(taken, default=0)} MiB, with a limit of 384"


def test_an_init_container_kept_the_task_from_starting(ran):
    """It ended with 3 and said why; base was never started."""
    life = ran.one("init_fails")
    assert life.ended("broken")["exitCode"] == 3
    assert life.ended("base") is None
    assert "the database is not there" in ran.log("init_fails", "broken")
    assert life.phases()[-1] == "Failed" and not life.gone, "the pod was not kept"


def test_the_dag_shows_a_learner_the_same(ran, evidence):
    """`where_to_look` has found each of these pods, with state, events and log."""
    told = ran.xcom("where_to_look")
    evidence("told", {task: [pod["containers"] for pod in pods.values()] for task, pods in told.items()})
    names = {life.name for task_id in CAUSES for life in ran.of(task_id)}
    found = {name: pod for task_id in CAUSES for name, pod in told.get(task_id, {}).items()}
    assert set(found) <= names and {task_id for task_id in CAUSES if told.get(task_id)} == set(CAUSES)
    assert "ImagePull" in str([pod["containers"] for pod in told["image_missing"].values()])
    assert any("the database is not there" in str(pod["logs"]) for pod in told["init_fails"].values())
    assert all(pod["events"] for pod in told["image_missing"].values())
    log = ran.log("where_to_look")
    for task_id in CAUSES:
        assert f"describe pods -l dag_id=35_04_09_debugging_failed_pods,task_id={task_id}" in log


@pytest.fixture
def raised(ran, namespace):
    """The pod of a task that failed; the cluster has it no more."""
    life = ran.one("raises")
    assert ran.seen.one("raises").state == "failed"
    assert life.gone and namespace.api.found(namespace.path("pods", life.name)) is None, f"{life.name} is there"
    return life


def test_a_log_goes_with_its_pod(ran, raised, lab, airflow, evidence, claim):
    """Without remote logging, Airflow has nothing of a task whose pod is gone; with it, all that the pod said."""
    remote = lab.outputs["options"].get("logging.remote_logging", "False") == "True"
    text = airflow.log(ran.seen.one("raises"))
    evidence("pod", raised.row())
    evidence("what Airflow has of it", text[:600])
    claim(
        "When the Pod is removed after the run, those logs are gone, unless remote logging is configured",
        "seed 003",
        "holds" if ("a mistake of the task" in text) is remote else "wrong",
        {"remote logging": remote, "the exception is in Airflow's log": "a mistake of the task" in text},
    )
    assert "a mistake of the task" in ran.log("raises"), "the pod itself said nothing"
    assert ("a mistake of the task" in text) is remote


@pytest.mark.needs(extras="log-store")
def test_the_log_store_has_what_the_pod_took_with_it(ran, raised, host, airflow, evidence, claim):
    """One object in the store, every line of which Airflow shows; the pod was given no key to it."""
    store, text = host("log-store"), airflow.log(ran.seen.one("raises"))
    kept = kept_logs(store, ran.seen.run, "raises")
    evidence("objects of the store's pod", {key: len(value) for key, value in kept.items()})
    evidence("what Airflow has of it", text[:600])
    assert len(kept) == 1, f"the log store has {len(kept)} logs of raises"
    ((key, value),) = kept.items()
    assert "a mistake of the task" in value
    said = [str(json.loads(line)["event"]) for line in value.splitlines()]
    missing = [event for event in said if event not in text and not event.startswith("::")]  # those only fold lines
    assert not missing, f"Airflow does not show {missing}"
    claim(
        "The UI then fetches logs from that location instead of the local disk",
        "seed 003",
        "holds" if f"s3://{key}" in text else "wrong",
        {"Airflow read": text.splitlines()[0], "the pod is there": False},
    )
    password = store.check_output("printenv ROOT_SECRET_KEY")
    given = json.dumps([sighting.pod for sighting in raised.sightings])
    assert password and password not in given, "the pod was given the key of the store"
