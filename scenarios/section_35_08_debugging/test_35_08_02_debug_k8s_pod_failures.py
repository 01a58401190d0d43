"""From symptom to cause: memory, image, Pod Security, service account, template, RBAC and nodes, and that a fix is one.

Hint: a pod that was never made has no events; the answer of the API is in the scheduler's log.
"""

from contextlib import nullcontext

import pytest

from labs.waiting import until
from scenarios.observing import Observation
from scenarios.pods import ZONE, cause, pod_run, refusals, slug
from scenarios.probing import ended

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.8")

DAG = "35_08_02_debug_k8s_pod_failures"
REFUSED = {"privileged": "security", "unknown_account": "account", "limit_below_request": "template"}
TOLD = {
    "out_of_memory": "out_of_memory",
    "image_missing": "image",
    "no_such_node": "unschedulable",
    **dict.fromkeys(REFUSED, "refused"),
}
"""Task → what the DAG itself finds."""


@pytest.fixture(scope="module")
def said(service_log):
    """What the scheduler has logged since before the run."""
    return service_log("scheduler")


@pytest.fixture(scope="module")
def ran(said, lab, airflow, namespace, timeline):
    """One run; once `diagnose` has seen all, a node is given the label that `no_such_node` waits for.

    Nodes of a cluster of the user's stay as they are: there the run is ended.
    """
    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    own, node = lab.outputs["cluster"]["kind"] == "kind", min(namespace.nodes_with(ZONE, "a") or namespace.nodes())
    with namespace.watched() as history:
        run = airflow.trigger(DAG)
        timeline(run)
        try:

            def diagnosed():
                states = {ti.task_id: ti.state for ti in airflow.task_instances(run)}
                return (states if states.get("diagnose") in ("success", "failed") else None), str(states)

            until(diagnosed, what="diagnose to have looked", timeout=180, detail=lambda: airflow.explain(run))
            (waiting,) = [life for life in history.lives(run) if life.task_id == "no_such_node"]
            stuck = cause(waiting, namespace.events(waiting.uid))
            with namespace.labelled(node, "disk", "35-08-02") if own else nullcontext():
                if not own:
                    ended(airflow, run)
                run = airflow.wait(run, 240)
                history.wait_quiet(run)
        finally:
            for pod in namespace.pods_of(run):
                namespace.delete("pods", pod["metadata"]["name"], grace=1)
    assert run.state == "failed", airflow.explain(run)
    return pod_run(namespace, Observation(airflow, run, airflow.task_instances(run), [], history)), stuck, node


def test_memory_and_the_fix(ran, evidence):
    """Killed with the small limit, done with the larger one; the code is the same."""
    run, _, _ = ran
    found = {task: run.one(task) for task in ("out_of_memory", "enough_memory")}
    evidence("ended", {task: life.ended() for task, life in found.items()})
    assert cause(found["out_of_memory"], ()).kind == "memory"
    assert found["enough_memory"].ended()["exitCode"] == 0
    assert run.seen.one("out_of_memory").state == "failed"
    assert run.xcom("enough_memory") == 640


def test_an_image_that_cannot_be_pulled(ran, evidence):
    """The pod never ran; its state and events name the image."""
    run, _, _ = ran
    life = run.of("image_missing")[-1]
    found = cause(life, run.events[life.uid])
    evidence("cause", vars(found))
    evidence("events", run.told(life))
    assert found.kind == "image"
    assert any("localhost:1/no-such-image:1.0" in line for line in run.told(life))


@pytest.mark.parametrize("task_id", REFUSED)
def test_a_pod_that_is_refused(task_id, ran, said, evidence):
    """No pod was made; the scheduler's log has the API's sentence, and the task failed at once."""
    run, _, _ = ran
    found = [each for each in refusals(said()) if slug(task_id) in each.pod]
    evidence("refused", [vars(each) for each in found])
    assert run.of(task_id) == [], "a pod was made"
    assert found and {each.kind for each in found} == {REFUSED[task_id]}
    assert run.seen.one(task_id).state == "failed"


def test_a_template_that_makes_no_pod(ran, said, evidence):
    """The API named the field and what is wrong with it; the executor said no more than that there was no pod."""
    run, _, _ = ran
    found = [each for each in refusals(said()) if slug("limit_below_request") in each.pod]
    own = [line for line in said().splitlines() if "Pod creation failed with reason 'Unprocessable Entity'" in line]
    evidence("refused", [vars(each) for each in found])
    evidence("the executor says", own)
    assert [each.kind for each in found] == ["template"], f"the API has refused {found}"
    assert "resources.requests" in found[0].proof and "memory limit of 384Mi" in found[0].proof
    assert own
    assert run.seen.one("limit_below_request").state == "failed"


def test_rbac(ran, namespace, evidence):
    """The API refused the account of all workers, by name; the log says which Role would do."""
    run, _, _ = ran
    account = run.one("asks_without_role").first["spec"]["serviceAccountName"]
    user = f"system:serviceaccount:{namespace.name}:{account}"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": namespace.name},
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    allowed = {user: namespace.api.request("POST", path, review)["status"]["allowed"]}
    review["spec"]["user"] = f"system:serviceaccount:{namespace.name}:airflow-pod-reader"
    allowed[review["spec"]["user"]] = namespace.api.request("POST", path, review)["status"]["allowed"]
    log = run.log("asks_without_role")
    evidence("may list pods", allowed)
    evidence("log", [line for line in log.splitlines() if "The API answers" in line or "As a Role" in line])
    assert list(allowed.values()) == [False, True], f"may list pods: {allowed}"
    assert f'User "{user}" cannot list resource "pods"' in log
    assert "As a Role:  rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]" in log
    assert run.seen.one("asks_without_role").state == "failed"


@pytest.mark.needs(cluster="kind")
def test_no_node_fits_until_one_does(ran, evidence):
    """Unschedulable while no node had the label; with it, the task ran there, at its first try.

    A node may learn of its label later than the scheduler does, and send the pod away; the executor makes another one.
    """
    run, stuck, node = ran
    *sent_away, life = run.of("no_such_node")
    evidence("while it waited", vars(stuck))
    evidence("pods", [each.row() for each in (*sent_away, life)])
    assert stuck.kind == "unschedulable"
    assert "node affinity/selector" in stuck.proof
    assert all(each.phases() == ["Pending", "Failed"] and each.ended() is None for each in sent_away)
    assert (life.node, life.try_number, life.phases()[-1]) == (node, 1, "Succeeded")
    assert run.seen.one("no_such_node").state == "success"


def test_the_dag_shows_a_learner_the_same(ran, evidence):
    """`diagnose` has found each cause, and its log has cause and fix."""
    run, _, _ = ran
    told, log = run.xcom("diagnose"), run.log("diagnose")
    evidence("told", [{"task": task, "cause": each["cause"], "words": each["words"]} for task, each in told.items()])
    assert {task: told[task]["cause"] for task in TOLD} == TOLD
    assert "the image cannot be pulled" in log and "no node fits" in log and "more memory than its limit" in log
