"""Two zones serve the default queue, each part's health can be asked for, and work outlives the loss of a zone.

Hint: `lab status` shows both zones' workers; the log of `zones` shows what the workers say of themselves.
"""

import pytest

from components.pgbouncer import CONNECTIONS
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import processes
from scenarios.machine import remotes
from scenarios.pods import ZONE

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.10", replicas="worker")

DAG = "35_10_01_ha_executor_setup"
ZONES = {"zone_a": "zone-a-1", "zone_b": "zone-b-1"}
"""Queue of a zone → its worker."""

CLIENTS = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
"""Services that use the database: as metadata database, workers for the results of their messages."""


@pytest.fixture(scope="module")
def ran(run_dag):
    """One run."""
    return run_dag()


def test_work_that_names_no_queue_has_two_zones(ran, celery, evidence):
    """What the workers say is what they were started for: `default` has both of them, a zone's own queue has one."""
    told, started = ran.xcom("zones"), celery.queues()
    evidence("workers of each queue", told)
    assert told["default"] == sorted(ZONES.values()), f"{told['default']} serve the default queue"
    for queue, workers in told.items():
        assert workers == sorted(worker for worker, queues in started.items() if queue in queues)
    assert {queue: told[queue] for queue in ZONES} == {queue: [worker] for queue, worker in ZONES.items()}


def test_tasks_go_where_their_queue_is_served(ran, celery, evidence):
    """Tied tasks ran in their zone, the others in both; each worker's own log says so."""
    taken = celery.taken(ran.run)
    evidence("logs of the workers", [{"worker": t.worker, "task": t.task_id, "queue": t.queue} for t in taken])
    for queue, worker in ZONES.items():
        tied = {(t.queue, t.worker) for t in taken if t.task_id == f"tied_to_{queue}"}
        assert tied == {(queue, worker)}, f"the task tied to {queue} was taken by {tied}"
    free = {t.worker for t in taken if t.task_id == "anywhere"}
    assert free == set(ZONES.values()), f"four tasks that may run anywhere were all taken by {free}"


def test_a_task_whose_process_is_killed_does_its_work_in_the_next_try(ran, airflow, evidence):
    """The first try failed without a result, the second one, another process, wrote it; the run is successful."""
    tries = airflow.tries(ran.one("fragile"))
    evidence("tries", [{"try": t.try_number, "state": t.state, "worker": t.hostname, "pid": t.pid} for t in tries])
    assert [(t.try_number, t.state) for t in tries] == [(1, "failed"), (2, "success")]
    assert len(processes(tries)) == 2
    assert ran.xcom("fragile")["try"] == 2


def test_health_is_that_of_every_replica(ran, replicas, evidence):
    """What the DAG was told of each kind is what each replica's own job says."""
    told, jobs = ran.xcom("health"), replicas.jobs()
    evidence("as the task was told", told)
    evidence("jobs", [{"replica": name, "state": job.state, "heartbeat": job.heartbeat} for name, job in jobs.items()])
    assert set(told["kinds"].values()) == {"healthy"}
    assert told["workers"] == sorted(ZONES.values())
    assert set(jobs) == {name for names in replicas.names.values() for name in names}
    assert {job.state for job in jobs.values()} == {"running"}


def test_a_lost_zone_is_noticed_and_costs_only_what_is_tied_to_it(airflow, faults, timeline, evidence, claim):
    """With a zone away, its worker answers no ping, and free tasks run in the other; tied ones wait for its return."""
    airflow.wait_for_dag(DAG)
    with faults.lost(ZONES["zone_a"]) as fault, late_fails():
        run = airflow.trigger(DAG)
        timeline(run)

        def only_the_tied_one_is_left():
            now = airflow.task_instances(run)
            left = {ti.task_id for ti in now if ti.state != "success"}
            return (now if left == {"tied_to_zone_a"} else None), f"left: {', '.join(sorted(left))}"

        meanwhile = until(only_the_tied_one_is_left, what="all but the task tied to the zone to end", timeout=90)
    run = airflow.wait(run)
    ended = airflow.task_instances(run)

    workers = airflow.xcom(next(ti for ti in ended if ti.task_id == "health"))["workers"]
    free = [ti.hostname for ti in meanwhile if ti.task_id == "anywhere"]
    tied = {ti.task_id: ti for ti in ended if ti.task_id.startswith("tied")}
    evidence("workers that answered meanwhile", workers)
    evidence("states meanwhile", [{"task": ti.label, "state": ti.state, "worker": ti.hostname} for ti in meanwhile])
    evidence("seconds until the zone was back", fault.down)
    elsewhere = free.count(ZONES["zone_b"])
    claim(
        "High Availability: can be configured with redundant brokers and workers (judged: workers)",
        "seed 001",
        "holds" if workers == [ZONES["zone_b"]] and elsewhere == len(free) > 0 else "wrong",
        {
            "free tasks that ended meanwhile in the other zone": f"{elsewhere} of {len(free)}",
            "seconds until the zone was back": round(fault.down or 0.0, 1),
            "redundant brokers": "not shown: the lab has one",
        },
    )
    assert workers == [ZONES["zone_b"]]
    assert free == [ZONES["zone_b"]] * 4
    assert tied["tied_to_zone_a"].hostname == ZONES["zone_a"]
    assert tied["tied_to_zone_a"].started.timestamp() > fault.at + 1
    assert run.state == "success"


@pytest.mark.needs(local="processes")
def test_the_database_has_no_client_but_the_pool(lab, services, evidence):
    """Every service of Airflow is connected to PgBouncer and to no database; PgBouncer is, and keeps to its limit."""
    if "pgbouncer" not in lab.outputs["services"]:
        pytest.skip("needs pgbouncer on the PATH; without, all connections go straight to the database")

    def address(role):
        (server,) = lab.outputs["services"][role]
        (found,) = services.sockets(server["name"], server["endpoints"]["sql"].rpartition(":")[2])
        return found

    def held(name):
        to = list(remotes(services.incarnation(name).parts).values())
        return {"service": name, "to the pool": to.count(pool), "to the database": to.count(database)}

    pool, database = address("pgbouncer"), address("metadata-database")
    rows = [held(each["name"]) for role in CLIENTS for each in lab.outputs["services"][role]]
    pooled = held("pgbouncer")["to the database"]
    evidence("connections", rows)
    evidence("connections of the pool to the database", pooled)
    straight = [row["service"] for row in rows if row["to the database"]]
    assert not straight, f"connected to the database itself: {', '.join(straight)}"
    assert all(row["to the pool"] for row in rows if row["service"].startswith("scheduler"))
    assert 0 < pooled <= 2 * CONNECTIONS  # one pool for transactions, one for sessions


@pytest.mark.needs(platform="kubernetes")
def test_the_zones_are_those_of_the_cluster(lab, services, namespace, evidence):
    """Of each kind with two, one is in each zone, by the nodes of their pods; a zone's worker is in the zone."""
    zones = {name: node["metadata"]["labels"].get(ZONE, "") for name, node in namespace.nodes().items()}
    where = {service: zone for node, zone in zones.items() for service in services.on(node)}
    kinds = {
        role: {replica["name"]: where[replica["name"]] for replica in group}
        for role, group in lab.outputs["services"].items()
        if len(group) > 1
    }
    evidence("zones", [{"kind": role, **found} for role, found in kinds.items()])
    assert {"scheduler", "api-server", "worker"} <= set(kinds)
    for role, found in kinds.items():
        assert len(set(found.values())) == 2, f"each {role} is in zone {set(found.values())}"
    if set(zones.values()) >= {"a", "b"}:
        assert kinds["worker"] == {"zone-a-1": "a", "zone-b-1": "b"}


@pytest.mark.needs(platform="kubernetes")
def test_services_go_before_workers_and_each_kind_is_spread(lab, services, namespace, evidence):
    """As the API server stored their pods: the number of their priority, and zones that must not differ by two."""
    several = {role: group for role, group in lab.outputs["services"].items() if len(group) > 1}
    rows = []
    for role, group in several.items():
        for (part,) in (services.service_pod(each["name"]).parts for each in group):
            pod = namespace.api.request("GET", namespace.path("pods", part.name))
            rules = [
                (rule["topologyKey"], rule["maxSkew"], rule["whenUnsatisfiable"])
                for rule in pod["spec"].get("topologySpreadConstraints", ())
                if rule["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            ]
            rows.append({"role": role, "pod": part.name, "priority": pod["spec"].get("priority", 0), "spread": rules})
    evidence("pods", rows)
    of_workers = {row["priority"] for row in rows if row["role"] == "worker"}
    of_services = {row["priority"] for row in rows if row["role"] != "worker"}
    assert 0 < max(of_workers) < min(of_services), f"workers have the priority {of_workers}, services {of_services}"
    for row in rows:
        assert row["spread"] == [(ZONE, 1, "DoNotSchedule")], f"{row['pod']} is spread by {row['spread']}"


@pytest.mark.needs(platform="kubernetes")
def test_kubernetes_has_a_budget_for_each_kind(ran, lab, namespace, evidence):
    """What its own controller counts: two are there, one must stay, one may go; as the DAG works it out."""
    path = f"/apis/policy/v1/namespaces/{namespace.name}/poddisruptionbudgets"
    keys = ("expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed")
    found = {
        each["metadata"]["labels"]["component"]: {key: each["status"][key] for key in keys}
        for each in namespace.api.items(path)
    }
    evidence("budgets", [{"kind": role, **row} for role, row in found.items()])
    assert set(found) == {role for role, group in lab.outputs["services"].items() if len(group) > 1}
    for role, row in found.items():
        assert tuple(row.values()) == (2, 2, 1, 1), f"the budget of {role} is {row}"
    assert found["api-server"]["disruptionsAllowed"] == ran.xcom("budgets")["api-server"]


def test_budgets_allow_what_kubernetes_would(ran, evidence):
    """The arithmetic of a disruption budget, worked out by hand beside it."""
    told = ran.xcom("budgets")
    by_hand = {"scheduler": 1, "api-server": 1, "triggerer": 0, "worker": 1, "database": 0, "api-server, one gone": 0}
    evidence("evictions allowed", told)
    assert told == by_hand
