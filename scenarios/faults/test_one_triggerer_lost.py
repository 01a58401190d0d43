"""One triggerer of two is lost while tasks are deferred.

Airflow's contract: a triggerer that has sent no heartbeat for `[triggerer] triggerer_health_check_threshold` seconds
counts as dead, and its triggers are given to others. A trigger may be waited for twice meanwhile, or not at all, but a
deferred task is resumed once. In production that takes 30 s; here 15.
Source: https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/deferring.html#high-availability

Hint: the API says in each deferred task instance which triggerer has it.
"""

import time

import pytest
from airflow_client.client import TaskInstanceApi

from labs.waiting import until
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", replicas="triggerer")


def test_the_other_takes_over_what_it_waited_for(airflow, faults, replicas, start_probe, evidence):
    """Every deferred task is resumed while the triggerer is away, and just once."""
    probe = start_probe("probe_deferring")
    api = TaskInstanceApi(airflow.client)

    def owners():
        place = {"dag_id": probe.run.dag_id, "dag_run_id": probe.run.run_id}
        found = airflow.call(api.get_task_instances, **place).task_instances
        return {ti.task_id: ti.triggerer_job.hostname for ti in found if ti.triggerer_job}

    def deferred():
        found = owners()
        return (found if len(found) == 4 else None), f"{len(found)} of 4 deferred tasks have a triggerer"

    before = until(deferred, what="a triggerer to take the deferred tasks", timeout=60)
    owner = max(before.values(), key=list(before.values()).count)
    (survivor,) = set(replicas.names["triggerer"]) - {owner}

    with faults.lost(owner) as fault:

        def moved():
            found = owners()
            return (found if set(found.values()) == {survivor} else None), f"{found}"

        with late_fails():
            after = until(moved, what=f"{survivor} to take over what {owner} had", timeout=60)
            taken = time.time() - fault.at
            probe.release()
            run = airflow.wait(probe.run)
        resumed = time.time() - fault.at

    parts = sorted(execution.task for execution in probe.executions())
    evidence("triggerer of each deferred task", [{"task": t, "before": before[t], "after": after[t]} for t in before])
    evidence("seconds after the loss", {"taken over": taken, "all tasks successful": resumed})
    evidence("executions", parts)
    assert run.state == "success"
    assert parts == sorted(f"{task} {what}" for task in before for what in ("deferred", "resumed"))
    assert {ti.try_number for ti in airflow.task_instances(run)} == {1}
