"""What pods have in common comes from the template: labels, annotations, service account, resources.

Hint: the scheduler reads `[kubernetes_executor] pod_template_file`; it logs when there is no such file.
"""

from pathlib import PurePosixPath

import pytest
import yaml

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

EXECUTORS = {"airflow-worker", "airflow_version", "dag_id", "kubernetes_executor", "run_id", "task_id", "try_number"}
"""Labels that the executor sets on every pod."""

USED = {"template": "default.yaml", "by_default": "default.yaml", "by_another": "small.yaml"}
"""Task → the template that its pod should be made from."""


@pytest.fixture(scope="module")
def ran(run_in_pods):
    """One run, and every version of its pods."""
    return run_in_pods()


@pytest.fixture(scope="module")
def templates(ran, services):
    """The template files as they are where the scheduler runs, by name."""
    folder, found = PurePosixPath(ran.xcom("template")["file"]).parent, {}
    for name in set(USED.values()):
        done = services.run("scheduler", ["cat", str(folder / name)])
        assert done.returncode == 0, f"the scheduler cannot read {folder / name}: {done.stderr}"
        found[name] = yaml.safe_load(done.stdout)
    return found


@pytest.mark.parametrize("task_id", USED)
def test_the_pod_is_as_its_template_says(task_id, ran, templates, evidence):
    """Labels, annotations, account and resources of the file are the pod's, as the API server stored it."""
    template, pod = templates[USED[task_id]], ran.one(task_id).first
    wanted, got = template["metadata"], pod["metadata"]
    evidence("template", {"file": USED[task_id], "labels": wanted["labels"], "annotations": wanted["annotations"]})
    evidence("pod", {"labels": got["labels"], "annotations": got["annotations"]})
    assert wanted["labels"] and wanted["annotations"], "the template has no labels or annotations to show"
    for kind in ("labels", "annotations"):
        lacks = wanted[kind].items() - got[kind].items()
        assert not lacks, f"the pod of {task_id} is not as {USED[task_id]} says: of the {kind} it lacks {dict(lacks)}"
    assert pod["spec"]["serviceAccountName"] == template["spec"]["serviceAccountName"] != "default"
    base = template["spec"]["containers"][0]
    assert base["name"] == "base" == pod["spec"]["containers"][0]["name"]
    assert ran.one(task_id).spec()["resources"] == base["resources"]
    assert pod["spec"]["restartPolicy"] == "Never"


def test_the_executor_adds_its_own(ran, templates, evidence):
    """Labels that tell which task it is, and the container's arguments."""
    for task_id, file in USED.items():
        own = set(ran.one(task_id).first["metadata"]["labels"]) - set(templates[file]["metadata"]["labels"])
        evidence(f"labels of {task_id} that are not of {file}", sorted(own))
        assert own >= EXECUTORS
        args = ran.one(task_id).spec()["args"]
        assert args[:3] == ["python", "-m", "airflow.sdk.execution_time.execute_workload"]


def test_another_template_takes_the_place_of_the_default_one(ran, templates):
    """The pod of `by_another` has the other file's labels, and none of those that only the default one has."""
    default, other = (templates[file]["metadata"]["labels"].items() for file in ("default.yaml", "small.yaml"))
    assert other - default, "the two templates have the same labels: nothing can be told of them"
    assert other - default <= ran.one("by_another").labels.items()
    assert not (default - other) & ran.one("by_another").labels.items(), "the two templates were merged"


def test_the_tasks_see_it_too(ran, evidence):
    """What the downward API shows a task is what the API server has; no token is in the pod."""
    told = ran.xcom("report")
    for task_id in ("by_default", "by_another"):
        life, seen = ran.one(task_id), told[task_id]
        evidence(task_id, {"template_labels": seen["template_labels"], "account": seen["service_account"]})
        assert seen["labels"] == life.first["metadata"]["labels"]
        assert seen["service_account"] == life.first["spec"]["serviceAccountName"]
        assert seen["token_mounted"] is False
        names = [volume["name"] for volume in life.first["spec"]["volumes"]]
        assert "podinfo" in names
        assert not [name for name in names if name.startswith("kube-api-access")], "a token is mounted"
    log = ran.log("report")
    assert "labels of the template" in log and "labels of the executor" in log
    assert f"pod_template_file = {ran.xcom('template')['file']}" in ran.log("template")
