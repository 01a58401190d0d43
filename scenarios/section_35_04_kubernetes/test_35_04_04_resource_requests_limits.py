"""Requests and limits reach the pod and the kernel; a quota that is used up refuses pods instead of making them wait.

Hint: the scheduler's log has the API's answer to a pod that could not be created.
"""

import pytest

from scenarios.metering import metered
from scenarios.pods import refusals, slug

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

WANTED = {
    "small": ({"cpu": "50m", "memory": "320Mi"}, {"cpu": "1", "memory": "512Mi"}, "Burstable"),
    "large": ({"cpu": "250m", "memory": "512Mi"}, {"cpu": "2", "memory": "1Gi"}, "Burstable"),
    "guaranteed": ({"cpu": "400m", "memory": "448Mi"}, {"cpu": "400m", "memory": "448Mi"}, "Guaranteed"),
}
KERNEL = {"small": (1000, 512), "large": (2000, 1024), "guaranteed": (400, 448)}
"""Task → limits in thousandths of a CPU and MiB."""


@pytest.fixture(scope="module")
def ran(run_in_pods):
    """One run, and every version of its pods."""
    return run_in_pods(timeout=240)


def test_the_pods_have_what_their_tasks_ask_for(ran, evidence):
    """Requests, limits and class of each, as the API server stored them."""
    found = {}
    for life in ran.lives:
        resources = life.spec()["resources"]
        found[life.task_id] = (resources["requests"], resources["limits"], life.last["status"]["qosClass"])
    evidence("pods", [{"task": task, "requests": r, "limits": m, "class": q} for task, (r, m, q) in found.items()])
    for task, wanted in WANTED.items():
        assert found[task] == wanted, f"the pod of {task} has {found[task]}, not {wanted}"
    assert found["inherits"][:2] == found["report"][:2], "a pod without its own resources has not the template's"
    assert found["inherits"] not in WANTED.values()


def test_the_kernel_enforces_the_limits(ran, evidence):
    """The control group of each container has its limits; the one with little CPU was throttled, and took longer."""
    told = ran.xcom("report")["found"]
    evidence("told by the tasks", [{"task": task, **each} for task, each in told.items()])
    assert {task: (told[task]["kernel"]["cpu"], told[task]["kernel"]["memory"]) for task in KERNEL} == KERNEL
    for task, each in told.items():
        if task in WANTED:
            assert (each["given"]["limits_cpu"], each["given"]["limits_memory"]) == KERNEL[task]
    assert told["guaranteed"]["throttled"] > 0, "2 s of CPU time at 0.4 CPU should have been throttled"
    assert told["guaranteed"]["seconds"] > 2 / 0.4 - 1, "0.4 CPU should have taken 5 s for 2 s of CPU time"


@pytest.mark.needs(extras="metrics-server")
def test_metrics_server_says_what_the_kernel_counts(namespace, start_in_pods, evidence):
    """While a task computes, its CPU and memory as metrics-server has them are those of its own control group.

    Hint: `kubectl top pod`; it knows a pod after some 30 s, and then what it used in the last 15.
    """
    busy = start_in_pods("35_04_04_resource_requests_limits", "", {"seconds": 60})
    (ti,) = busy.wait_for_work("guaranteed")
    found = metered(namespace, ti.hostname, readings=2)
    evidence("guaranteed", [vars(each) for each in found])
    for each in found:
        assert each.counted_cpu > 0.2, f"the task did not compute: {each.counted_cpu:.2f} CPUs"
        assert each.cpu == pytest.approx(each.counted_cpu, rel=0.2), f"of {each.seconds:.0f} s"
        assert each.memory == pytest.approx(each.counted_memory, rel=0.2)
        assert each.cpu < 0.4 * 1.2, "it is said to have used more than its limit"


def test_the_log_counts_what_fits_into_a_quota(ran, evidence):
    """As many of each as both CPU and memory allow: the smaller number."""
    fit, log = ran.xcom("report")["fit"], ran.log("report")
    evidence("pods in a quota of 1 CPU and 2Gi", fit)
    assert {task: fit[task] for task in WANTED} == {"small": 6, "large": 4, "guaranteed": 2}
    assert "A quota of 1 CPU and 2Gi holds 6 pods like small at once." in log


def test_a_quota_refuses_pods(lab, namespace, run_in_pods, service_log, evidence):
    """With nothing left of the quota no pod is made, and tasks fail at once; the scheduler's log says why."""
    retries = int(lab.outputs["options"].get("kubernetes_executor.task_publish_max_retries", 0))
    if retries:
        pytest.skip(f"needs task_publish_max_retries 0; with {retries} a refused pod is tried again")
    said = service_log("scheduler")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "used-up"},
        "spec": {"hard": {"requests.memory": "1Mi"}},
    }
    with namespace.made("resourcequotas", quota):
        refused = run_in_pods(state="failed")
    found = refusals(said())
    mine = {task: [each for each in found if slug(task) in each.pod] for task in (*WANTED, "inherits")}
    evidence("refused", [vars(each) for each in found])
    assert not refused.lives, f"pods were made: {[life.name for life in refused.lives]}"
    for task, each in mine.items():
        assert refused.seen.one(task).state == "failed"
        assert refused.seen.one(task).started is None or not refused.seen.one(task).hostname, f"{task} had begun"
        assert each and each[0].kind == "quota", f"no word of a quota for {task}: {each}"
    assert "requested: requests.memory=1Gi" not in mine["small"][0].proof
    assert "requests.memory=512Mi" in mine["large"][0].proof, "the refusal does not name what was requested"
