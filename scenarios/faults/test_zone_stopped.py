"""A whole zone is stopped under load, and started again: its node with everything that is on it.

Kubernetes' contract: a node whose lease is not renewed is *not ready* after 40 s or a little more; its pods are not
replaced for 5 minutes more, and come back with it. Airflow's: what the lost scheduler had is adopted by the other one,
and a task that sent no heartbeat for `[scheduler] task_instance_heartbeat_timeout` is tried again.
Sources: https://kubernetes.io/docs/concepts/architecture/nodes/#node-status and
https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler

Hint: what there is once is in the other zone; `kubectl get pods -o wide` shows it.
"""

import time

import pytest

from scenarios.faulting import late_fails
from scenarios.pods import ZONE

pytestmark = pytest.mark.needs(executor="CeleryExecutor", cluster="kind", replicas="scheduler")


def test_the_other_zone_does_all_the_work(lab, airflow, faults, namespace, services, start_probe, evidence):
    """While the zone is away every task ends: those that it ran in their next try, all others in their first."""
    names = {role: [replica["name"] for replica in group] for role, group in lab.outputs["services"].items()}
    alone = {each for group in names.values() if len(group) == 1 for each in group}
    node = next((each for each in namespace.nodes_with(ZONE, "b") if not alone & set(services.on(each))), None)
    here = set(services.on(node)) if node else set()
    if not here:
        pytest.skip("needs a node in zone b with nothing of which there is one, as kind clusters of these labs have it")
    slots = sum(each["slots"] for each in lab.outputs["services"]["worker"])
    probe = start_probe("probe_again")
    before = probe.wait_for_full_slots(slots)
    caught = {each.task for each in before if each.service in here}

    with faults.node_stopped(node) as fault, late_fails():
        noticed = time.time() - fault.at
        probe.release()
        run = airflow.wait(probe.run, timeout=200)
        ended = time.time() - fault.at

    account = probe.account()
    places = {each.task: each.service for each in probe.executions() if each.ended}
    evidence("services in the zone", sorted(here))
    evidence("tasks that it ran when it was stopped", sorted(caught))
    evidence("seconds", {"node not ready": noticed, "all tasks ended": ended, "healthy again": fault.down})
    evidence("tasks", [{**row, "at": places.get(row["task"], "")} for row in account])
    assert caught and len(caught) < slots, f"of {slots} slots the zone had {len(caught)}"
    assert run.state == "success", airflow.explain(run)
    for row in account:
        again = int(row["task"] in caught)
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1 + again, 1 + again, 1), f"{row} was not ended once, at try {1 + again}"
    assert not set(places.values()) & here, f"a task ended in the zone that was away: {places}"
