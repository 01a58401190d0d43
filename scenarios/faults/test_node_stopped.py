"""A node is stopped with a task's pod on it: the task misses its heartbeats, and its next try runs elsewhere.

Kubernetes' contract: a node whose lease is not renewed is *not ready* after 40 s or a little more, and its pods are
evicted 5 minutes later. Airflow's: a task without a heartbeat for `[scheduler] task_instance_heartbeat_timeout` is
given up, whatever Kubernetes says of its pod, and retried if it has `retries`.
Sources: https://kubernetes.io/docs/concepts/architecture/nodes/#node-status and
https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler

Hint: anti-affinity keeps the next try out of the zone where its sibling runs, so it waits for that one's end.
"""

import pytest

from scenarios.faulting import late_fails
from scenarios.pods import GPU

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4", cluster="kind")


def test_the_task_is_given_up_and_runs_elsewhere(lab, airflow, faults, namespace, start_in_pods, evidence):
    """While the node is still down: second try, on another node; the first one's pod never ended."""
    gpu = namespace.nodes_with(GPU, "true")
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    busy = start_in_pods("35_04_05_affinity_tolerations", "runs on node", {"seconds": 60})
    for task_id in ("spread_1", "spread_2"):
        busy.wait_for_work(task_id)
    (lost,) = [life for life in (*busy.lives("spread_1"), *busy.lives("spread_2")) if life.node in gpu]

    with late_fails(), faults.node_stopped(lost.node) as fault:
        run = airflow.wait(busy.run, 300)
        (last,) = [ti for ti in airflow.task_instances(run) if ti.task_id == lost.task_id]
        tries = {ti.try_number: ti for ti in airflow.tries(last)}
        pods = busy.lives(lost.task_id)
    evidence("pods", busy.account(lost.task_id))
    given_up = tries[1].ended.timestamp() - fault.at
    evidence("seconds after the fault", {"given up": given_up, "again": tries[2].started.timestamp() - fault.at})
    assert run.state == "success", airflow.explain(run)
    assert {number: ti.state for number, ti in tries.items()} == {1: "failed", 2: "success"}
    assert [life.try_number for life in pods] == [1, 2]
    assert pods[1].node and pods[1].node != lost.node, "the next try ran on the node that was down"
    assert pods[0].phases()[-1] != "Succeeded"
    assert given_up > timeout / 2, "it was given up before its heartbeats were missed"
