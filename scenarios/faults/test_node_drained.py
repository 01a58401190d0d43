"""A node is drained while tasks run on it, at a moment when one of two API servers is just away on another node.

Kubernetes' contract: an eviction that a PodDisruptionBudget forbids is answered with 429, and whoever drains tries
again; it is allowed as soon as enough other pods are ready. Celery's: a worker that gets SIGTERM takes nothing more and
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


def test_the_drain_waits_for_its_budget_and_costs_no_task(
    lab, airflow, faults, namespace, services, start_probe, evidence
):
    """Refused until the other API server is ready, then done; every task is executed once, on whichever node."""
    names = {role: [replica["name"] for replica in group] for role, group in lab.outputs["services"].items()}
    alone = {each for group in names.values() if len(group) == 1 for each in group}
    node = next((each for each in namespace.nodes_with(ZONE, "b") if not alone & set(services.on(each))), None)
    here = set(services.on(node)) if node else set()
    if not here:
        pytest.skip("needs a node in zone b with nothing of which there is one, as kind clusters of these labs have it")
    (kept,) = here & set(names["api-server"])
    (away,) = set(names["api-server"]) - here
    (worker,) = here & set(names["worker"])
    slots = sum(each["slots"] for each in lab.outputs["services"]["worker"])
    probe = start_probe("probe_many", {"seconds": SECONDS})
    probe.wait_for_executions(slots)

    with faults.drained(node, away) as drain, late_fails():
        (other,) = services.service_pod(away).parts
        conditions = namespace.api.request("GET", namespace.path("pods", other.name))["status"]["conditions"]
        (ready,) = [moment(each["lastTransitionTime"]) for each in conditions if each["type"] == "Ready"]
        moved = {service: services.service_pod(service).parts[0].name for service in sorted(here)}
        left = services.on(node)
        run = airflow.wait(probe.run, timeout=300)

    refusals = [(at, said) for service, at, said in drain.refusals if service == kept]
    account, begun = probe.account(), drain.fault.at
    across = [
        each.task
        for each in probe.executions()
        if each.service == worker and each.ended and each.started < drain.evicted[worker] < each.ended
    ]
    evidence("evicted, seconds after the beginning", {name: at - begun for name, at in drain.evicted.items()})
    evidence("refused", {"how often": len(refusals), "in the API's words": refusals[-1][1] if refusals else ""})
    evidence("seconds", {f"{away} ready": ready - begun, f"{kept} let go": drain.evicted[kept] - begun})
    evidence("pods that took over", moved)
    evidence("tasks that the evicted worker ended", across)
    evidence("tasks", account)
    assert refusals, f"{kept} was let go at once, although {away} was away"
    assert "disruption budget" in refusals[-1][1]
    assert ready <= drain.evicted[kept], f"{kept} was let go before {away} was ready"
    assert left == [], f"{', '.join(left)} stayed on the drained node"
    assert across, "no task ran on the evicted worker: nothing shows that it was given its time"
    assert run.state == "success", airflow.explain(run)
    for row in account:
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1, 1, 1), f"{row} was not executed just once, to its end"
