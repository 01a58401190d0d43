"""The namespace's quota is used up, then raised: the executor fails tasks at once, or waits, as it is told to.

Airflow's contract: `[kubernetes_executor] task_publish_max_retries` is "the maximum number of retries for queuing the
task to the kubernetes scheduler when failing due to Kube API errors … e.g. quota exceeded"; 0 by default, -1 for
unlimited ones.
Source: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/configurations-ref.html

Hint: the scheduler's log has the API's answer, `exceeded quota`.
"""

import contextlib
import time

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.pods import refusals

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

DAG = "35_01_02_portable_dag"
RETRIES = "kubernetes_executor.task_publish_max_retries"
NONE, PLENTY = {"requests.memory": "1Mi"}, {"requests.memory": "64Gi"}


@pytest.mark.parametrize("retries", [0, -1], ids=["fails", "waits"])
def test_what_becomes_of_a_task_without_quota(retries, lab, airflow, faults, start_in_pods, service_log, evidence):
    """Refused, it fails without a pod, or stays queued until the quota is raised; afterwards the same DAG runs."""
    there = int(lab.outputs["options"].get(RETRIES, 0))
    with contextlib.nullcontext() if there == retries else lab.reconfigured({RETRIES: str(retries)}):
        said = service_log("scheduler")
        with late_fails(), faults.quota(NONE) as raise_to:
            busy = start_in_pods(DAG, "")

            def refused():
                found = [each for each in refusals(said()) if each.kind == "quota"]
                return (found or None), "no word of a quota"

            found = until(refused, what="the quota to refuse a pod", timeout=60, interval=0.5)
            if retries == 0:
                run = airflow.wait(busy.run, 60)
                states = {ti.task_id: ti.state for ti in airflow.task_instances(run)}
                made = busy.history.lives(busy.run)
            else:
                states = {ti.task_id: ti.state for ti in airflow.task_instances(busy.run)}
                made = busy.history.lives(busy.run)
            raised = time.time()
            raise_to(PLENTY)
            later = airflow.wait(airflow.trigger(DAG) if retries == 0 else busy.run, 180)
    first = min(ti.started.timestamp() for ti in airflow.task_instances(later) if ti.started)
    evidence("refused", [vars(each) for each in found[:3]])
    evidence("states without quota", states)
    evidence("seconds after the quota was raised", {"first task started": first - raised})
    assert made == [], f"pods were made without quota: {[life.name for life in made]}"
    assert later.state == "success", airflow.explain(later)
    if retries == 0:
        assert run.state == "failed"
        assert "failed" in states.values() and "queued" not in states.values()
    else:
        assert "queued" in states.values() and "failed" not in states.values()
        assert {ti.try_number for ti in airflow.task_instances(later)} == {1}, "a try was used up by waiting"
