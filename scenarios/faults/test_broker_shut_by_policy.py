"""A NetworkPolicy shuts the broker to all Celery workers while tasks run, and one worker's pod is replaced meanwhile.

Kubernetes' contract: whom a policy does not let in gets no connection; what becomes of one that is there when a policy
changes is the network's own affair. So such a mistake may show only when a worker has to connect again. Airflow's: the
command of a worker asks over the broker whether another one has its name, and ends when it cannot; Kubernetes starts it
again, later each time. What the broker has waits there, and a task that runs needs no broker: it reports to the API
server.
Sources: https://kubernetes.io/docs/concepts/services-networking/network-policies/#networkpolicy-and-running-pods and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy

Hint: the worker's log shows whom it could not connect to; `kubectl get networkpolicy airflow-redis -o yaml`, who may.
"""

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails

pytestmark = [
    pytest.mark.needs(executor="CeleryExecutor", section="35.3"),
    pytest.mark.needs(platform="kubernetes", because="it is a NetworkPolicy that shuts the broker"),
]

WORKER, QUEUE = "compute-1", "compute"

OUTAGE = 20.0
"""Seconds."""


def test_each_task_is_executed_once_when_the_policy_is_gone(
    policies_kept, airflow, faults, celery, executing, start_probe, evidence
):
    """What runs goes on, what the scheduler sends waits, and a worker that has to connect takes it when it may."""
    running = start_probe("probe_executions")
    across = running.wait_for_full_slots(executing.slots)

    with faults.shut_out("broker", list(celery.queues()), WORKER) as fault:
        late = start_probe("probe_compute")

        def sent():
            waiting = celery.waiting(QUEUE)[QUEUE]
            return (waiting if waiting == 3 else None), f"{waiting} of 3 messages wait"

        with late_fails():
            until(sent, what=f"the scheduler to send tasks for {WORKER}", timeout=OUTAGE)
        fault.last(OUTAGE)
        alive, begun, waiting = running.going_on(), late.executions(), celery.waiting(QUEUE)[QUEUE]
    for each in (running, late):
        each.release()
    with late_fails():
        runs = [airflow.wait(each.run, timeout=180) for each in (running, late)]

    account = [*running.account(), *late.account()]
    evidence("tasks", account)
    evidence("seconds until the lab was healthy again", fault.down)
    assert len(alive) == len(across) == executing.slots, "running tasks ended with the way to the broker"
    assert (waiting, begun) == (3, []), f"{WORKER} was shut out, and {3 - waiting} of 3 tasks were taken"
    assert {run.state for run in runs} == {"success"}, [airflow.explain(run) for run in runs]
    for row in account:
        assert row["executions started"] == row["completed"] == row["tries"] == 1, f"{row} was not executed just once"
