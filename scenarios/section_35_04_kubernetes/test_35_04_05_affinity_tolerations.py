"""Pods are placed by labels, affinity, taints and tolerations.

Hint: `kubectl get nodes -L topology.kubernetes.io/zone` and the taints in `kubectl describe node`.
"""

import pytest

from scenarios.pods import GPU, ZONE, spans

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")


@pytest.fixture(scope="module")
def zones(namespace):
    """Node → zone, for the nodes that are in one."""
    found = {name: node["metadata"]["labels"].get(ZONE) for name, node in namespace.nodes().items()}
    zones = {name: zone for name, zone in found.items() if zone}
    if set(zones.values()) < {"a", "b"} or not namespace.nodes_with(GPU, "true"):
        pytest.skip(
            "needs nodes in the zones a and b, one with the GPU label, as kind clusters of these labs have them"
        )
    return zones


@pytest.fixture(scope="module")
def ran(zones, run_in_pods):
    """One run, and every version of its pods."""
    return run_in_pods({"seconds": 15}, timeout=240)


def test_the_gpu_node_repels_and_attracts(ran, namespace, zones, evidence):
    """Only pods that tolerate its taint are on the GPU node; the one that also asks for it is there for certain."""
    gpu = namespace.nodes_with(GPU, "true")
    taints = {name: namespace.nodes()[name]["spec"].get("taints") for name in gpu}
    rows = [
        {
            "task": life.task_id,
            "node": life.node,
            "zone": zones.get(life.node),
            "tolerates": [each.get("key") for each in life.first["spec"].get("tolerations", ())],
        }
        for life in ran.lives
    ]
    evidence("taints", taints)
    evidence("pods", rows)
    assert all(taint["effect"] == "NoSchedule" for each in taints.values() for taint in each), "there is no such taint"
    assert ran.one("on_gpu_node").node in gpu
    for row in rows:
        if row["node"] in gpu:
            assert "nvidia.com/gpu" in row["tolerates"], f"{row['task']} is on the GPU node and tolerates nothing"
    assert ran.one("anywhere").node not in gpu
    affinity = ran.one("on_gpu_node").first["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": GPU, "operator": "In", "values": ["true"]}]}]


def test_a_selector_is_the_short_form(ran, zones):
    """The pod with a node selector is in its zone."""
    assert ran.one("in_zone_a").first["spec"]["nodeSelector"] == {ZONE: "a"}
    assert zones[ran.one("in_zone_a").node] == "a"


def test_anti_affinity_spreads_over_zones(ran, zones, evidence):
    """Two pods of a kind, there at the same time, are in different zones."""
    both = [ran.one("spread_1"), ran.one("spread_2")]
    times = [spans(life)["base"] for life in both]
    together = min(end for _, end in times) - max(start for start, _ in times)
    evidence("spread", {life.task_id: zones.get(life.node) for life in both} | {"together for (s)": together})
    for life in both:
        (term,) = life.first["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == ZONE
        kind = term["labelSelector"]["matchLabels"]
        assert kind.items() <= life.labels.items(), f"the rule of {life.task_id} is about other pods: {kind}"
    assert together > 0, "they were not there at the same time: nothing can be told"
    assert {zones[life.node] for life in both} == {"a", "b"}, "both are in the same zone"


def test_the_log_has_the_nodes(ran, evidence):
    """What the tasks saw of their nodes is where their pods were."""
    told, log = ran.xcom("report"), ran.log("report")
    evidence("told", told)
    nodes = {life.task_id: life.node for life in ran.lives if life.task_id != "report"}
    assert told["nodes"] == nodes
    assert told["together"] > 0
    for task_id, node in nodes.items():
        assert any(line.split()[-3:] == [task_id, "▶", node] for line in log.splitlines()), f"no line for {task_id}"
