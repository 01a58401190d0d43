"""The pod of a running task is deleted, evicted as a drained node does it, or killed by the kernel for its memory.

Airflow's contract: the executor sees the pod go before it has ended, and reports its task as failed; a task with
`retries` gets another pod, one without stays failed. Nobody waits for heartbeats that are missed. Kubernetes': a limit
is kept pod by pod, so that who takes too much harms no neighbour.
Sources: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html and
https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run

Hint: the scheduler's log says "deleted before it could complete"; of one that was killed, `kubectl describe pod`.
"""

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

STURDY, FRAGILE = "35_04_08_pod_gc_cleanup", "35_04_01_basic_pod_execution"
NEIGHBOURS = 2


@pytest.mark.parametrize("how", ["deleted", "evicted", "out_of_memory"])
def test_the_task_with_a_retry_recovers_and_the_other_fails(how, lab, airflow, faults, start_in_pods, evidence):
    """Each is executed once per try, each try in a pod of its own; of others that run meanwhile nothing is touched."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    others = start_in_pods("35_01_04_executor_parallelism", "holds a slot", {"tasks": NEIGHBOURS, "seconds": 60})
    others.wait_for_work("work", NEIGHBOURS)
    sturdy = start_in_pods(STURDY, "My pod is", {"seconds": 30})
    fragile = start_in_pods(FRAGILE, "The container started", {"seconds": 60})
    hit = [*sturdy.wait_for_work("succeeds"), *fragile.wait_for_work("first")]

    with getattr(faults, f"task_pods_{how}")(*hit) as fault, late_fails():
        states = [airflow.wait(each.run, 180).state for each in (sturdy, fragile, others)]

    (again,) = [ti for ti in airflow.task_instances(sturdy.run) if ti.task_id == "succeeds"]
    (failed,) = [ti for ti in airflow.task_instances(fragile.run) if ti.task_id == "first"]
    neighbours = [ti for ti in airflow.task_instances(others.run) if ti.task_id == "work"]
    lost = [sturdy.lives("succeeds")[0], fragile.lives("first")[0]]
    noticed = failed.ended.timestamp() - fault.at
    evidence("pods", [*sturdy.account("succeeds"), *fragile.account("first"), *others.account("work")])
    evidence("how base ended", {life.name: life.ended() for life in lost})
    evidence("seconds after the fault", {"given up": noticed, "again": again.started.timestamp() - fault.at})
    assert states == ["success", "failed", "success"], f"the runs ended as {', '.join(states)}"
    assert (again.state, again.try_number) == ("success", 2)
    assert (failed.state, failed.try_number) == ("failed", 1)
    assert [life.try_number for life in sturdy.lives("succeeds")] == [1, 2]
    assert len(fragile.lives("first")) == 1
    assert "Succeeded" not in {life.phases()[-1] for life in lost}
    if how == "out_of_memory":
        ends = {(life.ended()["reason"], life.ended()["exitCode"]) for life in lost}
        assert ends == {("OOMKilled", 137)}, f"they ended by {ends}"
    assert (sturdy.executions("succeeds"), fragile.executions("first")) == ({"succeeds": 2}, {"first": 1})
    assert noticed < timeout, f"noticed after {noticed:.0f} s: by missed heartbeats, not by the pod's end"
    assert all(ti.started.timestamp() < fault.at < ti.ended.timestamp() for ti in neighbours), (
        "they ran before or after"
    )
    assert {(ti.state, ti.try_number) for ti in neighbours} == {("success", 1)}
    assert [life.phases()[-1] for life in others.lives("work")] == ["Succeeded"] * NEIGHBOURS
    assert set(others.executions("work").values()) == {1}, f"executions: {others.executions('work')}"
