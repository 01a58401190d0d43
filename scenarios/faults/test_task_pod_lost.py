"""The pod of a running task is deleted, or evicted as a drained node does it: the task is retried if it has retries.

Airflow's contract: the executor sees the pod go before it has ended, and reports its task as failed; a task with
`retries` gets another pod, one without stays failed. Nobody waits for heartbeats that are missed.
Source: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html

Hint: the scheduler's log says "deleted before it could complete".
"""

import pytest

from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

STURDY, FRAGILE = "35_04_08_pod_gc_cleanup", "35_04_01_basic_pod_execution"


@pytest.mark.parametrize("how", ["deleted", "evicted"])
def test_the_task_with_a_retry_recovers_and_the_other_fails(how, lab, airflow, faults, start_in_pods, evidence):
    """Each is executed once per try, each try in a pod of its own."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    sturdy = start_in_pods(STURDY, "My pod is", {"seconds": 30})
    fragile = start_in_pods(FRAGILE, "The container started", {"seconds": 60})
    hit = [*sturdy.wait_for_work("succeeds"), *fragile.wait_for_work("first")]

    with getattr(faults, f"task_pods_{how}")(*hit) as fault, late_fails():
        runs = [airflow.wait(each.run, 180) for each in (sturdy, fragile)]

    (again,) = [ti for ti in airflow.task_instances(sturdy.run) if ti.task_id == "succeeds"]
    (failed,) = [ti for ti in airflow.task_instances(fragile.run) if ti.task_id == "first"]
    noticed = failed.ended.timestamp() - fault.at
    evidence("pods", [*sturdy.account("succeeds"), *fragile.account("first")])
    evidence("seconds after the fault", {"given up": noticed, "again": again.started.timestamp() - fault.at})
    assert [run.state for run in runs] == ["success", "failed"]
    assert (again.state, again.try_number) == ("success", 2)
    assert (failed.state, failed.try_number) == ("failed", 1)
    assert [life.try_number for life in sturdy.lives("succeeds")] == [1, 2]
    assert len(fragile.lives("first")) == 1
    assert sturdy.lives("succeeds")[0].phases()[-1] != "Succeeded"
    assert (sturdy.executions("succeeds"), fragile.executions("first")) == ({"succeeds": 2}, {"first": 1})
    assert noticed < timeout, f"noticed after {noticed:.0f} s: by missed heartbeats, not by the pod's end"
