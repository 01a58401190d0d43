"""A node is drained while tasks run on it, at a moment when what stands in for its services is just away elsewhere.

Kubernetes' contract: an eviction that a PodDisruptionBudget forbids is answered with 429, and whoever drains tries
again; it is allowed as soon as enough other pods are ready. A scheduler, DAG processor or triggerer is ready when the
database has its job, which only its own process can tell. Celery's: a worker that gets SIGTERM takes nothing more and
ends when what it runs has ended; so no task is lost where the pod has that long.
Sources: https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/ and
https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker

Hint: `kubectl get pdb` shows how many pods may go; `kubectl get pods -o wide` on which node each is.
"""

import pytest

from scenarios.faulting import late_fails
from scenarios.pods import ZONE, moment

pytestmark = pytest.mark.needs(executor="CeleryExecutor", cluster="kind", replicas="api-server")

SECONDS = 15
"""How long each task lasts."""


def ready_at(namespace, pod):
    """When a pod became ready, epoch seconds."""
    conditions = namespace.api.request("GET", namespace.path("pods", pod))["status"]["conditions"]
    (ready,) = [moment(each["lastTransitionTime"]) for each in conditions if each["type"] == "Ready"]
    return ready


def test_the_drain_waits_for_its_budget_and_costs_no_task(
    lab, airflow, faults, namespace, services, replicas, start_probe, evidence
):
    """Each is kept until the other of its kind is ready, then let go; every task is executed once, wherever that is."""
    names = {role: [replica["name"] for replica in group] for role, group in lab.outputs["services"].items()}
    alone = {each for group in names.values() if len(group) == 1 for each in group}
    node = next((each for each in namespace.nodes_with(ZONE, "b") if not alone & set(services.on(each))), None)
    here = set(services.on(node)) if node else set()
    if not here:
        pytest.skip("needs a node in zone b with nothing of which there is one, as kind clusters of these labs have it")
    (worker,) = here & set(names["worker"])
    # of workers none is away: its tasks would be lost with it
    others = {
        kept: away for group in names.values() for kept in here & set(group) - {worker} for away in set(group) - here
    }
    slots = sum(each["slots"] for each in lab.outputs["services"]["worker"])
    probe = start_probe("probe_many", {"seconds": SECONDS})
    probe.wait_for_executions(slots)

    with faults.drained(node, *others.values()) as drain, late_fails():
        jobs = replicas.jobs()
        ready = {away: ready_at(namespace, services.service_pod(away).parts[0].name) for away in others.values()}
        moved = {service: services.service_pod(service).parts[0].name for service in sorted(here)}
        left = services.on(node)
        run = airflow.wait(probe.run, timeout=300)

    refusals = {kept: [said for service, _, said in drain.refusals if service == kept] for kept in others}
    account, begun = probe.account(), drain.fault.at
    across = [
        each.task
        for each in probe.executions()
        if each.service == worker and each.ended and each.started < drain.evicted[worker] < each.ended
    ]
    evidence("evicted, seconds after the beginning", {name: at - begun for name, at in drain.evicted.items()})
    evidence(
        "kept until the other was ready, seconds after the beginning",
        [
            {
                "service": kept,
                "refused": len(refusals[kept]),
                "other": away,
                "its job began": jobs[away].began.timestamp() - begun if away in jobs else "has none",
                "ready": ready[away] - begun,
                "let go": drain.evicted[kept] - begun,
            }
            for kept, away in others.items()
        ],
    )
    evidence("in the API's words", {kept: said[-1] for kept, said in refusals.items() if said})
    evidence("pods that took over", moved)
    evidence("tasks that the evicted worker ended", across)
    evidence("tasks", account)
    assert {"scheduler", "api-server", "dag-processor", "triggerer"} <= {each.rpartition("-")[0] for each in others}
    for kept, away in others.items():
        assert refusals[kept], f"{kept} was let go at once, although {away} was away"
        assert "disruption budget" in refusals[kept][-1]
        assert ready[away] <= drain.evicted[kept], f"{kept} was let go before {away} was ready"
        if away in jobs:  # Kubernetes tells whole seconds
            assert jobs[away].began.timestamp() < ready[away] + 1, f"{away} was ready before it had its job"
    assert left == [], f"{', '.join(left)} stayed on the drained node"
    assert across, "no task ran on the evicted worker: nothing shows that it was given its time"
    assert run.state == "success", airflow.explain(run)
    for row in account:
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1, 1, 1), f"{row} was not executed just once, to its end"
