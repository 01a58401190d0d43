"""Services of a cluster as faults see them: by the pods that there are, and by nothing else."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from labs.cluster import Refused
from labs.errors import LabError
from labs.runs import TaskInstance
from scenarios.cutting import packets
from scenarios.faulting import Fault, Incarnation
from scenarios.faulting_kubernetes import ClusterFaults, Drain, KubernetesServices, Pod, as_pod, killed, without

SERVICES = {
    "scheduler": [
        {
            "name": "scheduler",
            "workload": "deployment/airflow-scheduler",
            "namespace": "airflow-t",
            "endpoints": {},
        }
    ],
    "metadata-database": [
        {
            "name": "metadata-database",
            "workload": "statefulset/airflow-postgresql",
            "namespace": "airflow-t",
            "endpoints": {"sql": "airflow-postgresql:5432"},
        }
    ],
}


def pod(name: str, uid: str, *, ready: bool = True, created: str = "1", going: bool = False, **more: Any) -> Any:
    labels = {"app": name.rpartition("-")[0]}
    metadata = {"name": name, "namespace": "airflow-t", "uid": uid, "creationTimestamp": created, "labels": labels}
    if going:
        metadata["deletionTimestamp"] = "now"
    conditions = [{"type": "Ready", "status": str(ready)}]
    statuses = [{"name": "main", "restartCount": more.pop("restarts", 0), "containerID": "", "state": {}}]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": statuses, **more},
    }


class Namespace:
    """A namespace with these pods; what is asked of it is written down."""

    name = "airflow-t"

    def __init__(self, *there: Any) -> None:
        self.there, self.done, self.api = list(there), [], self

    def beside(self, name: str) -> Namespace:
        assert name == self.name
        return self

    def path(self, kind: str, name: str = "") -> str:
        return f"{kind}/{name}"

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Any:
        workload = path.removesuffix("/scale").rpartition("/")[2]
        return {"spec": {"replicas": 1, "selector": {"matchLabels": {"app": workload}}}}

    def pods(self, app: str) -> list[Any]:
        return [each for each in self.there if each["metadata"]["labels"]["app"] == app]

    def found(self, path: str) -> Any:
        return next((each for each in self.there if path == f"pods/{each['metadata']['name']}"), None)

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        self.done.append(("delete", name, grace))
        self.there = [each for each in self.there if each["metadata"]["name"] != name]

    def patch(self, path: str, change: Any) -> None:
        self.done.append((path.rpartition("namespaces/")[2], change))


def services(*there: Any) -> tuple[KubernetesServices, Namespace]:
    namespace = Namespace(*there)
    return KubernetesServices(namespace, SERVICES), namespace  # type: ignore[arg-type]


def test_a_service_runs_when_its_pod_is_ready() -> None:
    found, _ = services(pod("airflow-scheduler-1", "u1"), pod("airflow-postgresql-0", "u2", ready=False))
    assert found.states() == {"scheduler": "RUNNING", "metadata-database": "RUNNING, NOT READY"}
    assert found.refused("metadata-database") == ["airflow-postgresql:5432"]
    assert found.refused("scheduler") == found.addresses("scheduler") == []


def test_a_pod_on_its_way_out_is_a_stray() -> None:
    found, _ = services(pod("airflow-scheduler-1", "old", going=True), pod("airflow-scheduler-2", "new", created="2"))
    assert found.incarnation("scheduler").id == "new/0"
    assert found.states() == {"scheduler": "RUNNING", "metadata-database": "STOPPED"}
    assert found.strays() == ["old pod airflow-scheduler-1 of scheduler"]
    assert found.incarnation("metadata-database").id == ""


def test_what_an_autoscaler_scales_changes_by_itself() -> None:
    scaled = {"name": "scheduler", "autoscaling": [0, 3]}
    groups = {"scheduler": [{**SERVICES["scheduler"][0], **scaled}]}
    two = Namespace(pod("airflow-scheduler-1", "u1"), pod("airflow-scheduler-2", "u2", created="2"))
    found = KubernetesServices(two, groups)  # type: ignore[arg-type]
    assert found.states() == {} and found.strays() == []
    assert found.incarnation("scheduler").id == "u2/0"


def test_where_processes_are_not_to_be_seen_the_pod_is_killed() -> None:
    found, namespace = services(pod("airflow-scheduler-1", "u1"))
    old = found.incarnation("scheduler")
    assert found.remains(old) == ["u1/0 pod airflow-scheduler-1"]
    found.kill(old)
    assert namespace.done == [("delete", "airflow-scheduler-1", 1)]
    assert found.remains(old) == []
    with pytest.raises(LabError, match="its processes are not on this machine"):
        found.freeze("scheduler")


def test_a_container_that_was_restarted_is_another_life() -> None:
    found, namespace = services(pod("airflow-scheduler-1", "u1"))
    old = found.incarnation("scheduler")
    namespace.there = [pod("airflow-scheduler-1", "u1", restarts=1)]
    assert found.remains(old) == []
    assert found.incarnation("scheduler").parts == (Pod("airflow-scheduler-1", "airflow-t", "u1", 1),)


def test_a_stopped_service_is_scaled_to_none_and_back() -> None:
    found, namespace = services()
    found.stop("scheduler")
    found.start("scheduler")
    path = "airflow-t/deployments/airflow-scheduler/scale"
    assert namespace.done == [(path, {"spec": {"replicas": 0}}), (path, {"spec": {"replicas": 1}})]


def test_processes_of_this_machine_are_told_by_their_pids() -> None:
    found, _ = services()
    own = psutil.Process()
    assert found.remains(Incarnation("x", str(own.pid), (own,)))[0].startswith(f"{own.pid} ")


def test_the_pod_of_a_task() -> None:
    task = pod("probe-work-1", "t1")
    found, _ = services(task)
    ti = TaskInstance("probe", "run", "work", -1, 1, "running", hostname="probe-work-1")
    assert found.task_pod(ti) == as_pod("work", task)
    with pytest.raises(LabError, match="pod '' of work is none of this lab's"):
        found.task_pod(TaskInstance("probe", "run", "work", -1, 1, "queued"))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"terminated": {"reason": "OOMKilled", "exitCode": 137}}, ""),
        ({"terminated": {"reason": "OOMKilled", "exitCode": 0}}, "'exitCode': 0"),
        ({"terminated": {"reason": "Error", "exitCode": 137}}, "'reason': 'Error'"),
        ({"running": {}}, "no end"),
    ],
)
def test_a_pod_that_the_kernel_killed_for_its_memory(state: Any, said: str) -> None:
    seen = pod("task-1", "u1", containerStatuses=[{"name": "base", "state": state}])
    if said:
        with pytest.raises(LabError, match=said):
            killed(seen)
    else:
        assert killed(seen) == "pod task-1 (u1): base was OOMKilled, exit code 137"


def test_a_rule_of_a_node_is_told_from_others_by_its_mark() -> None:
    listed = """Chain FORWARD (policy ACCEPT 0 packets, 0 bytes)
    pkts      bytes target     prot opt in     out     source               destination
      12      720 DROP       all  --  *      *       10.244.1.5           0.0.0.0/0            /* lab-1 */
     100     6000 DROP       all  --  *      *       10.244.1.6           0.0.0.0/0            /* lab-2 */
"""
    assert packets(listed, "lab-1") == 12
    with pytest.raises(LabError, match="the rule lab-3 is gone"):
        packets(listed, "lab-3")


def test_services_are_found_by_the_node_of_their_pods() -> None:
    there, elsewhere = pod("airflow-scheduler-1", "u1"), pod("airflow-postgresql-0", "u2")
    there["spec"]["nodeName"], elsewhere["spec"]["nodeName"] = "worker2", "worker"
    found, _ = services(there, elsewhere)
    assert (found.on("worker2"), found.on("worker"), found.on("gone")) == (["scheduler"], ["metadata-database"], [])


class Budgeted(Namespace):
    """A namespace in which evictions are answered with these statuses, the last of them again and again."""

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.statuses = list(statuses)

    def request(self, method: str, path: str, *body: Any, **_: Any) -> Any:
        self.done.append((method, path, body[0]["deleteOptions"]["gracePeriodSeconds"]))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status != 201:
            raise Refused(status, "Cannot evict pod as it would violate the pod's disruption budget.")
        return {}


def evicting(*statuses: int) -> tuple[Drain, list[Any]]:
    namespace = Budgeted(*statuses)
    faults = ClusterFaults(namespace, KubernetesServices(namespace, {}), None, None)  # type: ignore[arg-type]
    drain, old = Drain(Fault("drained", at=1.0)), Incarnation("api-server-2", "u/0", (Pod("p", "airflow-t", "u", 0),))
    faults._evict_all([old], drain, 60)
    return drain, namespace.done


def test_an_eviction_that_a_budget_forbids_is_asked_for_again() -> None:
    drain, asked = evicting(429, 201)
    assert asked == [("POST", "pods/p/eviction", 60)] * 2
    ((service, at, said),) = drain.refusals
    assert service == "api-server-2" and "disruption budget" in said
    assert drain.evicted["api-server-2"] > at and drain.last > 0
    with pytest.raises(Refused):
        evicting(403)


def test_a_policy_without_some_services_lets_the_others_in_as_before() -> None:
    before = [{"from": [{"podSelector": {"matchLabels": {"tier": "airflow"}}}], "ports": [{"port": 6379}]}]
    (rule,) = without(before, ["io", "default"])
    (peer,) = rule["from"]
    kept_out = {"key": "airflow-executor-labs/service", "operator": "NotIn", "values": ["io", "default"]}
    assert peer["podSelector"] == {"matchLabels": {"tier": "airflow"}, "matchExpressions": [kept_out]}
    assert rule["ports"] == before[0]["ports"]
    assert "matchExpressions" not in before[0]["from"][0]["podSelector"], "what is put back must be as it was"
