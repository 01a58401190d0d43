"""The Kubernetes API accepts connections and answers nothing for 30 s: running tasks do not need it.

Airflow's contract: a task in its pod speaks to Airflow's API server, not to Kubernetes. The executor makes no pod in
that time; its watch starts again where it ended, and what was queued gets its pod when there is an answer.
Source: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html

Hint: the scheduler waits for the API's answer in its own loop, and sends no heartbeat meanwhile.
"""

import time

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4", cluster="kind")

SILENCE = 30
TASKS = 2


def test_running_tasks_go_on_and_queued_ones_wait(airflow, faults, start_in_pods, evidence):
    """Each is executed once: those that ran across the silence, and the one that was triggered in it after it."""
    busy = start_in_pods("35_01_04_executor_parallelism", "holds a slot", {"tasks": TASKS, "seconds": 60})
    busy.wait_for_work("work", TASKS)

    with late_fails():
        with faults.kubernetes_api_silent() as fault:
            new = airflow.trigger("35_01_02_portable_dag")

            def over():
                seconds = time.time() - fault.at
                return (seconds if seconds >= SILENCE else None), f"{seconds:.0f} s"

            until(over, what=f"{SILENCE} s of silence", timeout=SILENCE + 10)
            during = {ti.label: ti.state for ti in airflow.task_instances(busy.run) if ti.task_id == "work"}
            begun = [ti.label for ti in airflow.task_instances(new) if ti.started]
        healed = time.time()
        runs = [airflow.wait(run, 240) for run in (busy.run, new)]

    first = min(ti.started.timestamp() for ti in airflow.task_instances(new) if ti.started)
    evidence("pods", busy.account("work"))
    evidence("in the silence", {"running": during, "begun of the new run": begun})
    evidence("seconds after the silence", {"first task of the new run": first - healed})
    assert set(during.values()) == {"running"}, f"tasks did not go on: {during}"
    assert begun == [], "a task got a pod without an API that makes one"
    assert [run.state for run in runs] == ["success", "success"]
    assert {ti.try_number for run in runs for ti in airflow.task_instances(run)} == {1}
    assert set(busy.executions("work").values()) == {1}, f"executions: {busy.executions('work')}"
    assert len(busy.lives("work")) == TASKS
