"""A site asks the API server for its tasks, runs them, and needs nothing else of Airflow.

Hint: `lab status` shows whether the sites run; the API server's log shows each request of theirs.
"""

from pathlib import Path

import pytest

from labs.processes import number
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.machine import listening

pytestmark = pytest.mark.needs(executor="EdgeExecutor", local="processes")


@pytest.fixture(scope="module")
def visit(run_dag, host, requests_since):
    """A run, and a reader of the requests that the API server has answered since it began."""
    requests = requests_since()
    return run_dag({"seconds": 2}, on=host("edge-worker")), requests


def test_a_site_runs_the_tasks(visit, sites, evidence):
    """The worker of a site starts the process of a task, as the site's own user, and in its own home."""
    run, _ = visit
    told, ti, worker = run.xcom("remote_execution"), run.one("remote_execution"), sites.worker("site-a")
    home, pid = worker.environ()["AIRFLOW_HOME"], number(worker)
    evidence("as the task says", told)
    evidence("as its machine says", {"worker": pid, "user": worker.uids().real, "home": home})
    assert told["pids"][0] == ti.pid, "Airflow recorded another process"
    assert told["pids"][2] == pid, "the task's grandparent is not the site's worker"
    assert (told["site"], ti.hostname) == ("site-a", "site-a")
    own = (sites.home("site-a") / "registered.pid").stat()  # the folder itself may be a volume, which root makes
    assert told["uid"] == worker.uids().real == own.st_uid, "it did not run as the site's own user"
    assert told["home"] == home

    ti = run.one("task_execution_api")  # which lasts long enough to be seen from outside
    table = next((look.processes for look in run.looks if ti.pid in look.processes), None)
    assert table, f"the machine never showed process {ti.pid} of {ti.label}"
    supervisor = table[table[ti.pid].ppid]
    assert "airflow supervisor" in supervisor.command, f"its parent is {supervisor.command}"
    assert supervisor.ppid == pid, "its supervisor is not a child of the site's worker"


def test_the_supervisor_calls_the_task_execution_api(visit, sites, evidence):
    """Each request that the task names reaches the API server; the task's own process holds no connection."""
    run, requests = visit
    told = run.xcom("task_execution_api")
    statuses = {
        wanted: {r.status for r in requests() if f"{r.method} {r.path.removeprefix('/execution/')}" == wanted}
        for wanted in told["requests"]
    }
    evidence("answers of the API server", [{"request": each, "statuses": seen} for each, seen in statuses.items()])
    assert len(statuses) == 5
    for wanted, seen in statuses.items():
        assert seen, f"the API server never saw {wanted}"
        good = {404} if "not_there" in wanted else {200, 201, 204}
        assert seen <= good, f"{wanted} was answered with {seen}"
    assert told["base"] == sites.worker("site-a").environ()["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert told["connections"] == 0, "the task's own process opened a connection"
    log = run.log("task_execution_api")
    assert all(wanted in log for wanted in [*told["requests"], "connections of this process: 0"])


def test_a_site_asks_for_its_tasks(visit, sites, evidence):
    """Sites fetch what they run, so that nobody has to reach them: they listen on no port."""
    run, requests = visit
    seen = {
        name: {
            "asked for work": sum(r.path == f"/edge_worker/v1/jobs/fetch/{name}" for r in requests()),
            "ran": sum(job.worker == name for job in sites.jobs(run.run)),
            "ports": listening(sites.processes(name)),
        }
        for name in ("site-a", "site-b")
    }
    evidence("sites", [{"site": name, **row} for name, row in seen.items()])
    assert sum(row["ran"] for row in seen.values()) == len(run.instances), "a task was not handed out as a job"
    for name, row in seen.items():
        assert row["asked for work"] >= row["ran"] > 0, f"{name} ran tasks that it did not ask for"
        assert row["ports"] == [], f"{name} listens on {row['ports']}"


def test_a_site_pushes_its_logs(visit, sites, lab, evidence):
    """The log is a file in the site's home; what the API server has of it came through its own edge API."""
    run, requests = visit
    ti, worker = run.one("remote_execution"), sites.worker("site-a")
    place = f"dag_id={ti.dag_id}/run_id={ti.run_id}/task_id={ti.task_id}/attempt=1.log"
    own, central = sites.home("site-a") / "logs" / place, Path(lab.outputs["paths"]["logs"]) / place

    def complete():
        sizes = [file.stat().st_size if file.exists() else 0 for file in (own, central)]
        return (True if sizes[0] == sizes[1] > 0 else None), f"{sizes[0]} bytes at the site, {sizes[1]} pushed"

    with late_fails():
        until(complete, what="the whole log to be pushed", timeout=15)
    pushes = [r.status for r in requests() if r.path.startswith(f"/edge_worker/v1/logs/push/{ti.dag_id}/{ti.task_id}/")]
    evidence("the log", {"at the site": str(own), "pushed to": str(central), "pushes": pushes})
    assert own.read_text() == central.read_text(), "the site's log and the pushed one differ"
    assert own.stat().st_uid == worker.uids().real, "another user wrote the site's log"
    assert set(pushes) == {200}, f"the pushes were answered with {pushes}"
    assert "the edge worker  pid" in run.log("remote_execution"), "the REST API does not give the pushed log"


def test_a_site_needs_less_than_another_worker(visit, sites, evidence):
    """Of what a Celery worker needs, a site has the API server's address and a login secret, and no more."""
    run, _ = visit
    told, variables = run.xcom("compare_workers"), set(sites.worker("site-a").environ())
    names = {
        "metadata database": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "broker": "AIRFLOW__CELERY__BROKER_URL",
        "result backend": "AIRFLOW__CELERY__RESULT_BACKEND",
        "encryption key": "AIRFLOW__CORE__FERNET_KEY",
        "API server": "AIRFLOW__EDGE__API_URL",
        "login secret": "AIRFLOW__API_AUTH__JWT_SECRET",
    }
    given = {what for what, name in names.items() if name in variables}
    evidence("given to the site", given)
    assert given == {"API server", "login secret"}, f"the site was given {', '.join(sorted(given))}"
    assert told == {what: what in given for what in names}, "the task tells otherwise than its worker's environment"


def test_the_queue_of_a_use_case_chooses_the_site(visit, sites, evidence):
    """Each use case runs at the one site that serves its queue."""
    run, _ = visit
    known = sites.all()
    cases = run.all("iot", "machine_learning", "specialized_hardware")
    evidence("use cases", [{"use case": ti.task_id, "queue": ti.queue, "site": ti.hostname} for ti in cases])
    assert len(cases) == 3
    for ti in cases:
        serving = [name for name, site in known.items() if ti.queue in site.queues]
        assert serving == [ti.hostname], f"{ti.task_id} ran at {ti.hostname}, but {serving} serve its queue"
    assert len({ti.hostname for ti in cases}) == 2, "all use cases ran at one site"
    assert run.xcom("summary") == {ti.task_id: ti.hostname for ti in cases}
