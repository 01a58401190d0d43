"""What seed 003 says of two schedulers: one of them is on standby, and nothing gets faster.

Two loads, each with both schedulers and with one: tasks for the workers, and chains that only schedulers work on.

Hint: each scheduler's log names the tasks that it queued; the load of the machine decides how much a second one helps.
"""

import re
from datetime import datetime

import pytest
from airflow_client.client import DAGApi, DAGPatchBody, DagRunApi, TriggerDAGRunPostBody

from labs.runs import FINISHED_RUN, Run
from labs.waiting import until
from scenarios.dispatching import queued_tasks
from scenarios.judge import span, states

pytestmark = pytest.mark.needs(executor="CeleryExecutor", replicas="scheduler")

SOURCE = "seed 003"
DAGS, CHAINS = 24, 40
QUEUED_AT = re.compile(r"^(\S+)Z .*Setting the following tasks to queued state", re.MULTILINE)
NOTICEABLE, DOUBLE = 1.2, 1.8
"""Ratios from which on a throughput counts as larger, and as twice as large."""


def test_both_schedulers_work_at_the_same_time(lab, airflow, faults, probes, replicas, service_log, evidence, claim):
    """Who queued the tasks of many DAGs, and when; the same with one scheduler away."""
    said = {name: service_log("scheduler", number) for number, name in enumerate(replicas.names["scheduler"])}
    dags = sorted(dag_id for dag_id in probes if dag_id.startswith("probe_fifty_"))[:DAGS]
    before = replicas.jobs()
    runs, both = _one_each(airflow, dags)
    logs = {name: log() for name, log in said.items()}
    after = replicas.jobs()
    shares = {name: sum(len(queued_tasks(log, run)) for run in runs) for name, log in logs.items()}
    spans = {name: _span(log) for name, log in logs.items()}
    with faults.lost(next(iter(said))):
        _, one = _one_each(airflow, dags)

    together = min(end for _, end in spans.values()) - max(start for start, _ in spans.values())
    numbers = {
        "queued by each": shares,
        "seconds in which both queued tasks": round(together, 1),
        "tasks per second with both": round(both, 2),
        "with one": round(one, 2),
        "ratio": round(both / one, 2),
    }
    evidence(f"{DAGS} DAGs, one task each for the workers", numbers)
    assert all(after[name].id == before[name].id for name in said), "a scheduler was started again meanwhile"
    assert sum(shares.values()) == len(dags), f"{shares} queued by the schedulers, of {len(dags)}"
    claim(
        "only one scheduler is active at a time, by a distributed lock; the second is a standby",
        SOURCE,
        "wrong" if min(shares.values()) > 0 and together > 0 else "holds",
        numbers,
    )
    claim("with two schedulers we can run twice as many DAGs", SOURCE, _at_least(DOUBLE, both / one), numbers)


def test_scheduling_alone(airflow, faults, probes, replicas, evidence, claim):
    """Chains that need no worker: decisions per second of both schedulers and of one."""
    both = _chains(airflow)
    with faults.lost(replicas.names["scheduler"][0]):
        one = _chains(airflow)
    ratio = both / one
    numbers = {
        "tasks decided per second with both": round(both, 1),
        "with one": round(one, 1),
        "ratio": round(ratio, 2),
    }
    evidence(f"{CHAINS} chains of ten empty tasks", numbers)
    claim(
        "HA schedulers do not make scheduling faster",
        SOURCE,
        "wrong" if ratio >= NOTICEABLE else "holds",
        numbers,
    )
    claim("it does not double scheduling throughput", SOURCE, "wrong" if ratio >= DOUBLE else "holds", numbers)


def _at_least(wanted, ratio):
    return "holds" if ratio >= wanted else "wrong"


def _one_each(airflow, dags):
    """One run of each DAG; the runs, and how many tasks per second the workers executed."""
    runs = [airflow.wait(run, timeout=240) for run in [airflow.trigger(dag_id, {"tasks": 1}) for dag_id in dags]]
    executed = [ti for run in runs for ti in airflow.task_instances(run) if ti.pid is not None]
    assert states(executed) == {"success": len(dags)}
    return runs, len(executed) / span(executed)


def _span(log):
    """When a scheduler first and last queued tasks, epoch seconds."""
    moments = [datetime.fromisoformat(each + "+00:00").timestamp() for each in QUEUED_AT.findall(log)]
    return (min(moments), max(moments)) if moments else (0.0, 0.0)


def _chains(airflow):
    """All chains are let go at once; how many tasks per second the schedulers decided."""
    dags, api, dag_id = DAGApi(airflow.client), DagRunApi(airflow.client), "probe_empty_chain"

    def pause(paused):
        body = DAGPatchBody(is_paused=paused)
        airflow.call(dags.patch_dag, dag_id=dag_id, dag_patch_body=body, update_mask=["is_paused"])

    pause(True)
    made = []
    for _ in range(CHAINS):
        body = TriggerDAGRunPostBody(logical_date=None)
        made.append(airflow.call(api.trigger_dag_run, patience=0, dag_id=dag_id, trigger_dag_run_post_body=body))
    ids = {run.dag_run_id for run in made}
    pause(False)

    def ended():
        found = airflow.call(api.get_dag_runs, dag_id=dag_id, limit=100, order_by=["-id"]).dag_runs
        left = [run for run in found if run.dag_run_id in ids and run.state.value not in FINISHED_RUN]
        return (None if left else found), f"{len(left)} of {CHAINS} left"

    until(ended, what=f"{CHAINS} chains to end", timeout=240, interval=0.5)
    instances = [ti for run_id in ids for ti in airflow.task_instances(Run(dag_id, run_id, "success"))]
    assert states(instances) == {"success": 10 * CHAINS}
    return len(instances) / span(instances)
