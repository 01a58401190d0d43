"""In a cluster nothing of a lab gets a connection but what its role needs, and nobody from outside but to the API.

The facts are connections, tried in the pods themselves, to every port of the lab and to the Kubernetes API: by address,
so that no unknown name keeps anybody away. Each address lets somebody in, or its refusals show nothing.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/overview.html#airflow-components and
https://airflow.apache.org/docs/apache-airflow-providers-celery/stable/celery_executor.html#architecture

Hint: `kubectl get networkpolicies -o yaml` shows who is let in, and `kubectl get pods --show-labels` who that is.
"""

from functools import partial
from urllib.parse import urlsplit

import pytest

from scenarios.network import answers, service_address, stranger
from scenarios.pods import execute

pytestmark = pytest.mark.needs(platform="kubernetes", because="it is NetworkPolicies that part pods")

DATABASE = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
"""Who of Airflow uses the metadata database, Celery's workers for their results."""

USED_BY = {
    "metadata-database": DATABASE,
    "pgbouncer": DATABASE,
    "broker": ("scheduler", "worker", "flower"),
    "log-store": ("api-server", "scheduler", "triggerer", "worker"),
}
"""Role → roles of Airflow that need its ports. What else listens is for everybody."""

ASKED = (*DATABASE, "flower", "edge-worker")
"""Roles that run Airflow's image, in which a connection can be tried."""

KUBERNETES = "Kubernetes API"


@pytest.fixture(scope="module")
def places(lab, namespace, services):
    """Everything that may be tried, `host:port` by what it is; of the lab's, the role."""
    found = {
        role: f"{services.host(replicas[0]['name'])}:{address.rpartition(':')[2]}"
        for role, replicas in lab.outputs["services"].items()
        if role in USED_BY
        for address in replicas[0]["endpoints"].values()
    }
    return {
        **found,
        "api": service_address(namespace, urlsplit(lab.outputs["internal_api_url"]).netloc),
        KUBERNETES: service_address(namespace.beside("default"), "kubernetes:443"),
    }


@pytest.fixture(scope="module")
def outside(namespace, places, policies_kept):
    """Where a pod of no lab, and without a policy, gets."""
    with stranger(namespace) as (_, run):
        return reached(run, places)


def reached(run, places):
    """The names of the places to which a pod gets a connection."""
    told = answers(run, list(places.values()))
    return {name for name, address in places.items() if not told[address]}


def test_each_service_reaches_what_its_role_needs(lab, services, places, outside, evidence):
    """Tried in a pod of every role: what it needs answers, all else is refused."""
    pooled, in_pods = "pgbouncer" in places, "KubernetesExecutor" in lab.executors
    rows = {}
    for role in ASKED:
        for replica in lab.outputs["services"].get(role, ())[:1]:
            needs = {name for name, users in USED_BY.items() if name in places and role in users}
            needs -= {"metadata-database"} if pooled else set()
            needs |= {KUBERNETES} if in_pods and role in ("scheduler", "api-server") else set()
            rows[role] = ({"api", *needs}, reached(partial(services.run, replica["name"]), places))
    evidence("reached", [{"from": role, "needs": needs, "reached": found} for role, (needs, found) in rows.items()])
    somebody = outside.union(*(found for _, found in rows.values())) | ({"metadata-database"} if pooled else set())
    assert somebody == set(places), f"nobody reaches {sorted(set(places) - somebody)}: refusals there say nothing"
    for role, (needs, found) in rows.items():
        assert found == needs, f"{role} reaches {sorted(found)}, and needs {sorted(needs)}"


def test_nobody_from_outside_gets_further_than_the_api(places, outside, evidence):
    """A pod of another namespace reaches the API, as people do, and of the lab no other port."""
    evidence("reached from another namespace", outside)
    assert outside == {"api", KUBERNETES}, f"from another namespace, {sorted(outside)} are reached"


@pytest.mark.needs(default_executor="KubernetesExecutor", section="35.4")
def test_a_task_reaches_the_api_server(namespace, start_in_pods, places, outside, evidence):
    """A task's own pod reaches the API server, and the log store where there is one; neither database nor cluster."""
    busy = start_in_pods("35_04_01_basic_pod_execution", "The container started", {"seconds": 60})
    (ti, *_) = busy.wait_for_work("first")
    found = reached(partial(execute, namespace, ti.hostname, "base"), places)
    evidence("reached from the pod of a task", found)
    needs = {"api", "log-store"} & set(places)
    assert found == needs, f"a task reaches {sorted(found)}, and needs {sorted(needs)}"
