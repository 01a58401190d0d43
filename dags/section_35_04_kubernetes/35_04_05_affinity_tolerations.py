"""# 35.4.5 On which node a pod runs

| to say | use | here |
| --- | --- | --- |
| only nodes with that label | `node_selector`, the short form | `in_zone_a` |
| only, or rather, nodes with such labels | `node_affinity`, *required* or *preferred* | `on_gpu_node` |
| this pod may run on a node that repels pods | `tolerations` for the node's *taint* | `on_gpu_node`, `spread_…` |
| not where another such pod runs | `pod_anti_affinity` over a `topology_key` | `spread_1`, `spread_2` |

    zone a: a worker                        zone b: a worker for GPU work
    topology.kubernetes.io/zone=a           topology.kubernetes.io/zone=b, nvidia.com/gpu.present=true
                                            taint nvidia.com/gpu=present:NoSchedule

* A taint keeps out whoever does not tolerate it; a *toleration attracts nobody*. A GPU task needs both: the
  toleration to be let in, and the affinity so that it goes nowhere else.
* `required…` that no node meets leaves the pod `Pending` (35.8.2), and its task `queued` until `[scheduler]
  task_queued_timeout`. `preferred…` is a wish.
* `…IgnoredDuringExecution`: rules count when the pod is placed; a node that changes later keeps its pods.
* Anti-affinity counts pods that are there, not those that have ended: the two `spread_…` tasks must overlap, and
  stay for some seconds to do so. Their pods carry a label that the rule names.
* A node may die with what is on it. The task misses its heartbeats, is given up, and with `retries` the next try
  gets a pod elsewhere, if any other node is allowed to it.
* A rule like these in the pod template (35.4.2) holds for all tasks; spread *schedulers* and workers likewise.

(The "GPU" of these labs is a label and a taint; real ones are also asked for as a resource, `nvidia.com/gpu: 1`.)

**What to look for**: the nodes in the log of `report`, beside `kubectl get nodes -L topology.kubernetes.io/zone` and
`kubectl describe node … | grep Taints`.
"""

import logging
import os
import time
from datetime import timedelta

from airflow.sdk import Param, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

ZONE = "topology.kubernetes.io/zone"
GPU = "nvidia.com/gpu.present"
TOLERATION = k8s.V1Toleration(key="nvidia.com/gpu", operator="Equal", value="present", effect="NoSchedule")
SPREAD = {"spread": "35-04-05"}


def placed(labels=None, **spec):
    """The `executor_config` of a pod with these rules; it also sees the name of its node."""
    field = k8s.V1ObjectFieldSelector(field_path="spec.nodeName")
    env = [k8s.V1EnvVar(name="SEEN_NODE", value_from=k8s.V1EnvVarSource(field_ref=field))]
    metadata = k8s.V1ObjectMeta(labels=labels) if labels else None
    base = k8s.V1Container(name="base", env=env)
    return {"pod_override": k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=[base], **spec))}


def only_on(label, value):
    """An affinity that no other node meets."""
    wanted = k8s.V1NodeSelectorRequirement(key=label, operator="In", values=[value])
    terms = [k8s.V1NodeSelectorTerm(match_expressions=[wanted])]
    required = k8s.V1NodeSelector(node_selector_terms=terms)
    rule = k8s.V1NodeAffinity(required_during_scheduling_ignored_during_execution=required)
    return k8s.V1Affinity(node_affinity=rule)


def away_from(labels, topology_key):
    """An affinity for another zone, node, … than that of each pod with these labels."""
    selector = k8s.V1LabelSelector(match_labels=labels)
    term = k8s.V1PodAffinityTerm(label_selector=selector, topology_key=topology_key)
    rule = k8s.V1PodAntiAffinity(required_during_scheduling_ignored_during_execution=[term])
    return k8s.V1Affinity(pod_anti_affinity=rule)


@dag(
    dag_id="35_04_05_affinity_tolerations",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
    tags=["reference", "core", "advanced", "success"],
    params={
        "seconds": Param(15, type="number", minimum=0, maximum=120, description="how long the spread tasks stay"),
    },
    doc_md=__doc__,
)
def affinity_tolerations():
    @task
    def stay(params=None, ti=None):
        """Tells on which node it runs; the tasks that spread stay there for a while."""
        node, started = os.environ.get("SEEN_NODE", "no node: this is no pod"), time.time()
        log.info("%s runs on node %s", ti.task_id, node)
        if ti.task_id.startswith("spread"):
            time.sleep(params["seconds"])
        return {"task": ti.task_id, "node": node, "from": started, "to": time.time()}

    @task
    def report(places):
        """Who landed where, and whether those that spread did it at the same time."""
        nodes = {each["task"]: each["node"] for each in places}
        spread = sorted((each for each in places if each["task"].startswith("spread")), key=lambda each: each["from"])
        together = round(min(each["to"] for each in spread) - spread[-1]["from"], 1)
        for name, node in nodes.items():
            log.info("%-12s ▶ %s", name, node)
        log.info(
            "The spread tasks were there together for %s s, on %s nodes.",
            together,
            len({*(nodes[e["task"]] for e in spread)}),
        )
        log.info("on_gpu_node needed its toleration to be let in, and its affinity to go nowhere else.")
        return {"nodes": nodes, "together": together}

    spreading = placed(SPREAD, affinity=away_from(SPREAD, ZONE), tolerations=[TOLERATION])
    report(
        [
            stay.override(task_id="anywhere", executor_config=placed())(),
            stay.override(task_id="in_zone_a", executor_config=placed(node_selector={ZONE: "a"}))(),
            stay.override(
                task_id="on_gpu_node",
                executor_config=placed(affinity=only_on(GPU, "true"), tolerations=[TOLERATION]),
            )(),
            stay.override(task_id="spread_1", executor_config=spreading)(),
            stay.override(task_id="spread_2", executor_config=spreading)(),
        ]
    )


affinity_tolerations()
