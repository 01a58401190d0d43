"""A NetworkPolicy shuts the broker to all Celery workers for 20 s, while tasks run and others wait or come.

Kubernetes' contract: whom a policy does not let in gets no connection; what becomes of one that is there when a policy
changes is the network's own affair, so here the broker ends them. Celery's: a worker connects to its broker again
(`broker_connection_retry`). Airflow's: a task that runs reports to the API server, and one that the broker has waits.
Sources: https://kubernetes.io/docs/concepts/services-networking/network-policies/#networkpolicy-and-running-pods and
https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry

Hint: the worker's log shows each attempt to connect; `kubectl get networkpolicy airflow-redis -o yaml`, who is let in.
"""

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails

pytestmark = [
    pytest.mark.needs(executor="CeleryExecutor", section="35.3"),
    pytest.mark.needs(platform="kubernetes", because="it is a NetworkPolicy that shuts the broker"),
]

QUEUE = "default"

OUTAGE = 20.0
"""Seconds."""


def test_each_task_is_executed_once_when_the_policy_is_gone(
    policies_kept, airflow, faults, celery, executing, start_probe, evidence
):
    """What runs ends meanwhile, what the scheduler still sends waits, and no worker begins anything until the end."""
    probe = start_probe("probe_executions")
    across = probe.wait_for_full_slots(executing.slots)
    before = celery.waiting(QUEUE)[QUEUE]

    with faults.shut_out("broker", list(celery.queues()), celery.disconnect) as fault:
        late = start_probe("probe_retries")

        def sent():
            waiting = celery.waiting(QUEUE)[QUEUE]
            return (waiting if waiting >= before + 2 else None), f"{waiting} messages wait, {before} did before"

        with late_fails():
            waiting = until(sent, what="the scheduler to send what came meanwhile", timeout=OUTAGE)
        alive = probe.going_on()
        probe.release()
        late.release()
        fault.last(OUTAGE)
        ended = [each.task for each in probe.executions() if each.ended]
        begun = [each.task for each in (*probe.executions(), *late.executions()) if each.started > fault.at]
    with late_fails():
        runs = [airflow.wait(each.run, timeout=180) for each in (probe, late)]

    account = [*probe.account(), *late.account()]
    evidence("messages waiting", {"before": before, "at the end of the outage": waiting})
    evidence("tasks", account)
    evidence("seconds until the lab was healthy again", fault.down)
    assert len(alive) == len(across) == executing.slots, "running tasks ended with the connections of their workers"
    assert sorted(ended) == sorted(each.task for each in across), f"meanwhile, {ended} ended"
    assert not begun, f"workers that were shut out began {begun}"
    assert {run.state for run in runs} == {"success"}, [airflow.explain(run) for run in runs]
    for row in account:
        assert row["executions started"] == row["completed"] == row["tries"] == 1, f"{row} was not executed just once"
