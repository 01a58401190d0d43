"""The scheduler's pod is deleted while task pods run: the next scheduler adopts them, and none is executed again.

Airflow's contract: a scheduler that starts looks for pods of schedulers that are gone, and labels them as its own
(`airflow-worker`), so that its watch sees them; a task without such a pod is reset. In the meantime the pods go on, as
they speak to the API server alone.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/scheduler.html

Hint: the new scheduler's log says "attempting to adopt pod".
"""

import time

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

TASKS = 3


def test_running_pods_are_adopted_not_repeated(airflow, faults, namespace, start_in_pods, evidence, claim):
    """Same pods, first try, one execution each by their own word; another scheduler's label on them."""
    busy = start_in_pods("35_01_04_executor_parallelism", "holds a slot", {"tasks": TASKS, "seconds": 60})
    instances = busy.wait_for_work("work", TASKS)
    before = {life.uid: life.labels["airflow-worker"] for life in busy.lives("work")}

    with faults.pod_deleted("scheduler") as fault, late_fails():
        going = {
            each["metadata"]["uid"] for each in namespace.pods_of(busy.run) if each["status"]["phase"] == "Running"
        }

        def adopted():
            owners = {life.uid: life.labels["airflow-worker"] for life in busy.lives("work")}
            mine = [uid for uid, owner in owners.items() if owner != before.get(uid)]
            return (owners if len(mine) == TASKS else None), f"{len(mine)} of {TASKS} adopted"

        after = until(adopted, what="the new scheduler to adopt the pods", timeout=90)
        seconds = time.time() - fault.at
        run = airflow.wait(busy.run, 180)

    ended = [ti for ti in airflow.task_instances(run) if ti.task_id == "work"]
    evidence("pods", busy.account("work"))
    evidence("label airflow-worker", [{"before": before[uid], "after": after[uid]} for uid in before])
    evidence("seconds after the fault", {"scheduler healthy": fault.down, "adopted": seconds})
    assert going >= set(before), "pods ended with their scheduler"
    assert run.state == "success", airflow.explain(run)
    assert {(ti.state, ti.try_number) for ti in ended} == {("success", 1)}
    assert {life.uid for life in busy.lives("work")} == set(before), "other pods were made"
    assert set(busy.executions("work").values()) == {1}, f"executions: {busy.executions('work')}"
    assert {ti.hostname for ti in ended} == {ti.hostname for ti in instances}
    claim(
        "if the active scheduler crashes, the standby takes over",
        "seed 003",
        "holds",
        {
            "pods adopted by the next scheduler (s)": round(seconds, 1),
            "executed again": sum(again - 1 for again in busy.executions("work").values()),
        },
    )
