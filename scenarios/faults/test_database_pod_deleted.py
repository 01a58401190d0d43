"""The pods of the database, or of the API server, are deleted while task pods run: nothing is lost, none runs twice.

Airflow's contract: a running task reports to the API server, each report is tried `[workers] execution_api_retries`
times, and only after `max_failed_heartbeats` in a row the task gives up, or after `[scheduler]
task_instance_heartbeat_timeout`, which is 300 s in production, and here too. Kubernetes': a StatefulSet's new pod has
the name and the claim of the old one, so what the database had written is there again.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#stable-storage

Hint: how long a service was away is in the fault's evidence; a slow machine may outlast the tasks' patience.
"""

import pytest

from scenarios.faulting import PATIENT, late_fails
from scenarios.probing import REPORT_FAILED

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

TASKS = 2


@pytest.mark.parametrize("service", ["metadata-database", "api-server"])
def test_tasks_survive_and_nothing_is_forgotten(service, lab, airflow, faults, run_dag, start_in_pods, evidence):
    """Each task is executed once, to its end, though reports of it failed; what was finished before is as it was."""
    earlier = run_dag(dag_id="35_01_02_portable_dag")
    with lab.reconfigured(PATIENT):
        busy = start_in_pods("35_01_04_executor_parallelism", "holds a slot", {"tasks": TASKS, "seconds": 60})
        busy.wait_for_work("work", TASKS)

        with faults.pod_deleted(service) as fault, late_fails():
            run = airflow.wait(busy.run, 240)

    ended = [ti for ti in airflow.task_instances(run) if ti.task_id == "work"]
    said = {life.label: busy.history.said(life) for life in busy.lives("work")}
    failed = {label: len(REPORT_FAILED.findall(log)) for label, log in said.items()}
    gave_up = [label for label, log in said.items() if "Too many failed heartbeats" in log]
    evidence("pods", busy.account("work"))
    evidence("reports that failed, by the task's own log", failed)
    evidence("seconds after the fault", {"healthy again": fault.down})
    assert airflow.run(earlier.run) == earlier.run, "a run that had ended is not as it was"
    assert airflow.task_instances(earlier.run) == list(earlier.instances)
    assert not gave_up, f"{gave_up} gave up: an outage of {fault.down:.0f} s outlasted max_failed_heartbeats"
    assert all(failed.values()), f"no report of some task failed, so it needed no patience: {failed}"
    assert run.state == "success", airflow.explain(run)
    assert {(ti.state, ti.try_number) for ti in ended} == {("success", 1)}
    assert len(busy.lives("work")) == TASKS
    assert set(busy.executions("work").values()) == {1}, f"executions: {busy.executions('work')}"
