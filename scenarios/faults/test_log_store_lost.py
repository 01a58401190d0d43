"""The log store goes while a task runs: the task ends well all the same; its log is there if the store is by then.

Airflow's contract: when a task has ended and its state is told, the process above it writes the log to the store, once.
Nothing waits for that, and nothing tries it again later: what cannot be written goes with the pod.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/logging-monitoring/logging-tasks.html

Hint: the pod itself says why it could not write, which `kubectl logs` shows until the pod is gone.
"""

import time

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.log_store import kept_logs

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4", extras="log-store")

DAG, WORD = "35_04_01_basic_pod_execution", "The container started"


def test_what_it_had_outlives_its_pod(airflow, faults, host, run_dag, start_in_pods, evidence):
    """Its next pod has the logs of before, and takes that of the task that ran meanwhile."""
    store = host("log-store")
    earlier = run_dag({"seconds": 1}, dag_id=DAG, settle=True)
    before = kept_logs(store, earlier.run)
    busy = start_in_pods(DAG, WORD, {"seconds": 40})
    busy.wait_for_work("first")

    with faults.pod_deleted("log-store") as fault, late_fails():
        run = airflow.wait(busy.run, 240)

    busy.history.wait_quiet(run)
    after = kept_logs(store, run)
    evidence("logs", [{"run": "before", "kept": sorted(before)}, {"run": "during", "kept": sorted(after)}])
    evidence("seconds after the fault", {"healthy again": fault.down})
    assert len(before) == len(earlier.instances), "not every task of the run before had its log there"
    assert kept_logs(store, earlier.run) == before, "the logs of before are not as they were"
    assert run.state == "success", airflow.explain(run)
    assert len(after) == len(airflow.task_instances(run))
    assert WORD in kept_logs(store, run, "first").popitem()[1]


def test_a_log_is_lost_when_it_is_away_at_the_end_of_the_task(airflow, faults, host, start_in_pods, evidence):
    """The task has succeeded, at its first try, and nobody has its log; the next task's is there."""
    busy = start_in_pods(DAG, WORD, {"seconds": 40})
    busy.wait_for_work("first")

    with faults.lost("log-store"), late_fails():
        away = time.time()

        def gone():
            (life,) = busy.lives("first")
            return (life if life.gone else None), " ▶ ".join(life.phases())

        life = until(gone, what="the pod of first to be gone", timeout=180)
    with late_fails():
        run = airflow.wait(busy.run, 240)

    busy.history.wait_quiet(run)
    store, found = host("log-store"), {ti.task_id: ti for ti in airflow.task_instances(run)}
    first, second = found["first"], found["second"]
    said = busy.history.said(life)
    evidence("pods", [*busy.account("first"), *busy.account("second")])
    evidence("the pod of first, of its log", [line for line in said.splitlines() if "Could not" in line])
    evidence("kept", sorted(kept_logs(store, run)))
    assert away < first.ended.timestamp(), "the task ended before the store was gone"
    assert run.state == "success", airflow.explain(run)
    assert (first.state, first.try_number, life.phases()[-1]) == ("success", 1, "Succeeded")
    assert WORD in said, "the pod itself said nothing"
    assert kept_logs(store, run, "first") == {}
    assert WORD not in airflow.log(first)
    assert "I run in" in kept_logs(store, run, "second").popitem()[1]
    assert "I run in" in airflow.log(second)
