"""Init containers come before the task, sidecars beside it, and neither keeps the pod alive.

Hint: `kubectl describe pod` while a task runs shows the state of each container.
"""

import pytest

from scenarios.pods import spans, statuses

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

LINES = 6


@pytest.fixture(scope="module")
def ran(run_in_pods):
    """One run, and every version of its pods."""
    return run_in_pods({"lines": LINES}, timeout=240)


def table(life):
    """When each container of a pod ran, in seconds after the first start."""
    times = spans(life)
    first = min(start for start, _ in times.values())
    return [{"container": name, "start": s - first, "end": e and e - first} for name, (s, e) in times.items()]


def test_every_pod_ends(ran, evidence):
    """All pods succeeded and are gone, each soon after its task."""
    for life in ran.lives:
        _, ended = spans(life)["base"]
        slow = life.sightings[-1].at - ended
        evidence(f"{life.task_id}: containers", table(life))
        assert life.phases()[-1] == "Succeeded" and life.gone, f"the pod of {life.task_id} lives: {life.phases()}"
        assert slow < 30, f"the pod of {life.task_id} lived for {slow:.0f} s after its task"


def test_init_containers_run_in_order(ran):
    """One after the other, each to its end with 0, and the task after both; what they made is there."""
    life = ran.one("prepared")
    times = spans(life)
    names = [each["name"] for each in life.first["spec"]["initContainers"]]
    order = [name for name in names if name in ("fetch", "check")]
    assert order == ["fetch", "check"]
    assert times["fetch"][1] <= times["check"][0]
    assert times["check"][1] <= times["base"][0]
    assert {life.ended(name)["exitCode"] for name in order} == {0}
    told = ran.xcom("prepared")
    assert told["data"] == "checked data"
    assert told["fetched"] < told["checked"] < told["base"], "they ran in another order than the pod says"


def test_a_sidecar_serves_and_is_stopped(ran, evidence):
    """It listens before the task starts, passes its request on, and ends after it, without being asked by the task."""
    life = ran.one("proxied")
    (proxy,) = [each for each in life.first["spec"]["initContainers"] if each["name"] == "proxy"]
    assert proxy["restartPolicy"] == "Always", "it is an init container, not a sidecar"
    started = [s for s in life.sightings if statuses(s.pod).get("proxy", {}).get("started")]
    running = [s for s in life.sightings if "running" in statuses(s.pod).get("base", {}).get("state", {})]
    assert started and running and started[0].at <= running[0].at, "the task began before its sidecar had started"
    times = spans(life)
    assert times["proxy"][0] <= times["base"][0]
    assert times["base"][1] <= times["proxy"][1], "the sidecar ended before the task"
    told = ran.xcom("report")
    evidence("answers", ran.xcom("proxied"))
    assert told["same_answer"] is True and told["via"] == "1.1 sidecar", "the answer did not come through the sidecar"
    assert "proxy listens" in ran.log("proxied", "proxy")


def test_a_further_container_ends_by_agreement(ran, evidence):
    """It reads what the task writes to their common volume, all of it, and ends by itself after the task said so."""
    life = ran.one("shipped")
    log = ran.log("shipped", "shipper").splitlines()
    evidence("shipper says", log)
    assert [each["name"] for each in life.first["spec"]["containers"]] == ["base", "shipper"]
    assert log == [*(f"shipped: line {number}" for number in range(1, LINES + 1)), f"shipper ends, after {LINES} lines"]
    assert life.ended("shipper")["exitCode"] == 0
    assert ran.xcom("report")["lines"] == LINES


def test_every_container_meets_the_policy(ran):
    """None may gain rights, and all have requests and limits."""
    for life in ran.lives:
        for each in [*life.first["spec"].get("initContainers", ()), *life.first["spec"]["containers"]]:
            assert each["securityContext"]["allowPrivilegeEscalation"] is False, each["name"]
            assert set(each["resources"]) >= {"requests", "limits"}, each["name"]


def test_the_report_says_so(ran):
    """The order, the answer and the lines are in the log."""
    log = ran.log("report")
    assert "Init containers, in order: fetched ▶ checked ▶ base" in log
    assert "left its mark: 1.1 sidecar" in log
    assert f"The shipper was given {LINES} lines" in log
