"""A `pod_override` changes what it names of the pod, and keeps the rest of the template.

Hint: an override is laid over the template in the scheduler; `kubectl get pod … -o yaml` shows the result.
"""

from pathlib import Path

import pytest

from labs.airflow import AirflowError
from scenarios.pods import ZONE
from scenarios.probing import deployed

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

LARGE = {"requests": {"cpu": "200m", "memory": "448Mi"}, "limits": {"cpu": "1", "memory": "896Mi"}}


@pytest.fixture(scope="module")
def ran(run_in_pods, namespace):
    """One run, and every version of its pods."""
    if not namespace.nodes_with(ZONE, "b"):
        pytest.skip(f"needs a node with the label {ZONE}=b, as kind clusters of these labs have it")
    return run_in_pods(timeout=240)


def pod(ran, task_id):
    """The spec of a task's pod as it was created."""
    return ran.one(task_id).first["spec"]


def test_no_override_no_difference(ran, evidence):
    """The pod without an `executor_config` is the template; one that only adds variables differs by these alone."""
    plain, eyes = ran.one("plain").spec(), ran.one("eyes_only").spec()
    names = [[each["name"] for each in spec.get("env", ())] for spec in (plain, eyes)]
    evidence("variables", {"plain": names[0], "eyes_only": names[1]})
    assert set(names[0]) < set(names[1]), "the template's variables are lost"
    assert all(name.startswith("SEEN_") for name in set(names[1]) - set(names[0]))
    for key in ("image", "resources", "volumeMounts", "securityContext"):
        assert eyes.get(key) == plain.get(key), f"{key} of the template has changed"


def test_the_image_is_overridden(ran, evidence):
    """The API server has the name that the override gives; the task ran in it."""
    images = {task_id: ran.one(task_id).spec()["image"] for task_id in ("plain", "other_image", "everything")}
    evidence("images", images)
    asked = ran.xcom("report")["asked"]
    assert images["other_image"] == images["everything"] == asked["other_image"]["image"]
    assert images["other_image"] != images["plain"]
    assert ran.seen.one("other_image").state == "success"


def test_the_resources_are_overridden(ran, evidence):
    """Requests and limits are those of the override, as a whole; the task sees them."""
    found = {task_id: ran.one(task_id).spec()["resources"] for task_id in ("plain", "other_resources", "everything")}
    evidence("resources", found)
    assert found["other_resources"] == found["everything"] == LARGE, f"the override's resources are lost: {found}"
    assert found["plain"] != LARGE
    place = ran.xcom("report")["places"]["other_resources"]
    assert (place["requests_cpu"], place["requests_memory"]) == ("200", "448")
    assert (place["limits_cpu"], place["limits_memory"]) == ("1000", "896")


def test_the_node_selector_is_overridden(ran, namespace, evidence):
    """The pods that ask for zone b are there, the others are not: they do not tolerate its taint."""
    there = namespace.nodes_with(ZONE, "b")
    nodes = {life.task_id: life.node for life in ran.lives}
    evidence("nodes", nodes)
    assert pod(ran, "other_node")["nodeSelector"] == {ZONE: "b"}
    assert {nodes["other_node"], nodes["everything"]} <= there
    assert not {nodes["plain"], nodes["eyes_only"]} & there
    seen = ran.xcom("report")["places"]
    assert {task_id: seen[task_id]["node"] for task_id in ("other_node", "everything")} == {
        task_id: nodes[task_id] for task_id in ("other_node", "everything")
    }


def test_all_of_it_combines_with_the_template(ran, evidence):
    """`everything` has each difference at once, and still all that the template gives to every pod."""
    everything, plain = ran.one("everything"), ran.one("plain")
    common = {key: value for key, value in plain.labels.items() if everything.labels.get(key) == value}
    evidence("labels in common with a pod of the template alone", common)
    assert everything.labels["cost-centre"] == "35-04-03"
    assert {"tier", "component", "release"} <= set(common), "labels of the template are lost"
    assert pod(ran, "everything")["serviceAccountName"] == pod(ran, "plain")["serviceAccountName"]
    volumes = [{each["name"] for each in pod(ran, task_id)["volumes"]} for task_id in ("plain", "everything")]
    assert volumes[0] == volumes[1]
    assert ran.xcom("report")["places"]["everything"]["greeting"] == "from the override"


def test_the_log_shows_what_was_asked_and_got(ran, evidence):
    """The report names, for each task, its request beside its pod."""
    log = ran.log("report")
    evidence("report", [line for line in log.splitlines() if " asked for " in line])
    assert "plain asked for nothing" in log
    for task_id in ("other_image", "other_resources", "other_node", "everything"):
        assert f"{task_id} asked for {{" in log
        assert f"{task_id} got node {ran.one(task_id).node}" in log


MISTYPED = """
from airflow.sdk import dag, task
from kubernetes.client import models as k8s

base = k8s.V1Container(name="base", image_pul_policy="Always")

@dag(dag_id="probe_mistyped", schedule=None, tags=["mistyped"])
def mistyped():
    @task(executor_config={"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))})
    def never():
        pass

    never()

mistyped()
"""


@pytest.mark.needs(local="folders")
def test_an_unknown_field_is_refused_where_it_is_written(lab, airflow, tmp_path, evidence):
    """An override with it is an import error of its file, which names the field: no pod is ever made of it."""
    folder = tmp_path / "mistyped"
    folder.mkdir()
    (folder / "mistyped.py").write_text(MISTYPED)
    dags = Path(lab.outputs["paths"]["dags"])
    with pytest.raises(AirflowError) as refused, deployed(airflow, dags, folder, tag="mistyped"):
        pytest.fail("the DAG was taken")
    said = str(refused.value)
    evidence("import error", said.strip().splitlines()[-1])
    assert "got an unexpected keyword argument 'image_pul_policy'" in said
