"""A task at a site reaches the API and nothing else: not the database, not another site, not the deployment's secrets.

Hint: `/proc/<pid>/environ` of a site's worker shows what it was given; `ss -tnp` shows to whom it is connected.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from airflow_client.client import VariableApi

from labs.airflow import AirflowError
from labs.daemon import daemon
from labs.paths import run_directory
from labs.processes import number
from scenarios.cutting import CONNECT
from scenarios.machine import connections
from scenarios.observing import Observation
from scenarios.sites import own_users

pytestmark = pytest.mark.needs(executor="EdgeExecutor")

DAG = "35_06_05_task_isolation"
NOTE = "35_06_05_note"


def own_network(namespace):
    """Whether the nodes have the network of this project's node image, which knows nothing of policies."""
    from components.clusters.kind import POD_NETWORK  # pulumi takes a while to import

    with daemon() as client:
        there = [each for each in client.containers.list(ignore_removed=True) if each.name in namespace.nodes()]
        return any(each.exec_run(["test", "-x", POD_NETWORK])[0] == 0 for each in there)


def remote_addresses(found):
    """The addresses to which some processes hold TCP connections."""
    addresses = set()
    for process in found:
        try:
            addresses |= {each.remote for each in connections(process) if each.remote}
        except psutil.NoSuchProcess:
            continue
    return addresses


@pytest.fixture(scope="module")
def isolated(airflow, sites, services, requests_since, timeline):
    """A run, and what its machine showed meanwhile: environments, connections, and the scheduler's for comparison."""
    requests, seen = requests_since(), {"environments": {}, "sites to": set(), "scheduler to": set()}

    def watch(_):
        own = [(name, process) for name in ("site-a", "site-b") for process in sites.processes(name)]
        for name, process in own:
            try:
                seen["environments"][f"{name} {number(process)}"] = process.environ()
            except psutil.NoSuchProcess:
                continue
        seen["sites to"] |= remote_addresses(process for _, process in own)
        seen["scheduler to"] |= remote_addresses(services.incarnation("scheduler").parts)

    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    run = airflow.trigger(DAG, {"seconds": 3})
    timeline(run)
    ended = airflow.wait(run, watch=watch)
    assert ended.state == "success", airflow.explain(run)
    return {"run": Observation(airflow, run, airflow.task_instances(run), ()), "requests": requests(), **seen}


@pytest.fixture(scope="module")
def told(isolated):
    """What each task returned."""
    return {ti.task_id: isolated["run"].xcom(ti.task_id) for ti in isolated["run"].instances}


def test_airflow_refuses_its_models_to_tasks(isolated, told, evidence):
    """A task that opens a database session gets Airflow's error, and finds a placeholder for the address."""
    answer = told["use_models"]["answer"]
    evidence("the task was told", told["use_models"])
    assert answer.startswith("RuntimeError: Direct database access via the ORM is not allowed")
    assert told["use_models"]["address"] == "airflow-db-not-allowed:///"
    log = isolated["run"].log("use_models")
    assert answer in log and "Connections that this process had" in log


def test_no_process_at_a_site_knows_the_database(isolated, lab, evidence):
    """Workers, supervisors and tasks were all started without the database's address, and without its password."""
    (database,) = lab.outputs["services"]["metadata-database"][0]["endpoints"].values()
    ti = isolated["run"].one("use_models")
    telling = {  # names only: no value of an environment may get into a report
        pid: sorted(name for name, value in environment.items() if database in value or "postgres" in value)
        for pid, environment in isolated["environments"].items()
    }
    urls = [env.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "none") for env in isolated["environments"].values()]
    schemes = {url.partition("://")[0] for url in urls}
    evidence("processes looked at", {"all": len(telling), "the task use_models": f"{ti.hostname} {ti.pid}" in telling})
    evidence("kinds of database that they were told of", schemes)
    assert f"{ti.hostname} {ti.pid}" in telling, "the process of the task was never seen"
    assert not any(telling.values()), f"a process at a site was given {telling}"
    assert schemes <= {"none", "airflow-db-not-allowed"}  # the programs that a task starts inherit its placeholder


def test_no_process_at_a_site_is_connected_to_it(isolated, told, sites, services, lab, evidence):
    """While tasks ran, the sites were connected to the API server only; the scheduler, to the database."""
    (server,) = lab.outputs["services"]["metadata-database"]
    (database,) = services.sockets(server["name"], server["endpoints"]["sql"].rpartition(":")[2])
    api = services.sockets("api-server", urlsplit(sites.worker("site-a").environ()["AIRFLOW__EDGE__API_URL"]).port)
    evidence("connections", {"of the sites": isolated["sites to"], "of the scheduler": isolated["scheduler to"]})
    assert database in isolated["scheduler to"], "the probe does not see the connections that there are"
    assert isolated["sites to"] and isolated["sites to"] <= set(api)
    assert told["use_models"]["connections"] == 0


def test_the_database_refuses_a_site(sites, lab, services, evidence):
    """From a site's user, it takes no login without a password nor with a wrong one; with the right one, it would."""
    host, _, port = next(iter(lab.outputs["services"]["metadata-database"][0]["endpoints"].values())).rpartition(":")
    scheduler = psutil.Process(int(services.incarnation("scheduler").id))
    user, password = (
        scheduler.environ()["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].partition("//")[2].split("@")[0].split(":")
    )
    code = (
        "import psycopg2, sys; psycopg2.connect(host=sys.argv[1], port=sys.argv[2], user=sys.argv[3], dbname='airflow')"
    )

    def log_in(**variables):
        return sites.try_as("site-a", ["python", "-c", code, host, port, user], **variables)

    attempts = {
        "no password": log_in(),
        "a wrong one": log_in(PGPASSWORD="guessed"),
        "right": log_in(PGPASSWORD=password),
    }
    answers = {how: (ended.stderr.strip().splitlines() or ["accepted"])[-1] for how, ended in attempts.items()}
    evidence("answers of the database", answers)
    if lab.platform in ("docker", "kubernetes"):  # the site does not even find it
        assert all("could not translate host name" in answer for answer in answers.values())
        return
    assert "no password supplied" in answers["no password"]
    assert "password authentication failed" in answers["a wrong one"]
    assert answers["right"] == "accepted", "the attempts show nothing: even the right password is refused"


@pytest.mark.needs(platform="kubernetes")
def test_the_network_lets_a_site_reach_the_api_server_alone(services, namespace, evidence):
    """By address, as names are not needed for it: its NetworkPolicy lets the one through and not the other."""
    targets = {"api-server": "8080", "metadata-database": "5432"}
    reached = {
        name: services.run("site-a", ["python", "-c", CONNECT, services.host(name), port]).returncode == 0
        for name, port in targets.items()
    }
    evidence("reached from the site", reached)
    assert reached["api-server"], "the site does not reach the API server either: this shows nothing"
    if own_network(namespace):
        pytest.skip("needs a network that keeps NetworkPolicies; that of this project's node image keeps none")
    assert not reached["metadata-database"]


def test_what_tasks_share_goes_through_the_api(isolated, told, airflow, evidence):
    """A variable gets from one site to the other through the API server, which has answered each step."""
    wanted = f"/execution/variables/{NOTE}"
    steps = [f"{r.method} {r.status}" for r in isolated["requests"] if r.path == wanted]
    evidence("requests for the variable", steps)
    evidence("read at the other site", told["read_foreign"]["note"])
    assert [step.split()[0] for step in steps] == ["PUT", "GET", "DELETE"]
    assert told["read_foreign"]["note"].startswith("from site-b in lab__")
    assert (told["write"]["site"], told["read_foreign"]["site"]) == ("site-b", "site-a")
    with pytest.raises(AirflowError, match="404"):
        airflow.call(VariableApi(airflow.client).get_variable, variable_key=NOTE)


def test_sites_cannot_touch_each_other(told, sites, lab, evidence):
    """Another site's file cannot be read, nor its worker be signalled: the system refuses both."""
    users = {name: sites.worker(name).uids().real for name in ("site-a", "site-b")}
    evidence("users", users)
    evidence("answers", told["read_foreign"]["answers"])
    assert (told["read_foreign"]["user"], told["write"]["user"]) == (users["site-a"], users["site-b"])
    if not own_users(lab.platform):
        pytest.skip("needs an OS user for each site, which root has on the platform process")
    assert users["site-a"] != users["site-b"]
    for attempt, answer in told["read_foreign"]["answers"].items():
        assert answer.startswith("PermissionError"), f"to {attempt} was answered with {answer!r}"


def test_a_site_cannot_read_the_lab(sites, lab, evidence):
    """Of all files of the lab, a site's user can read its own, the DAGs, and nothing that holds a secret."""
    if not own_users(lab.platform):
        pytest.skip("needs an OS user for each site, which root has on the platform process")
    home = run_directory(lab.name)
    own = Path(sites.worker("site-a").environ()["AIRFLOW_HOME"])
    allowed = {own, Path(lab.outputs["paths"]["dags"])}
    files = [str(p) for p in home.rglob("*") if p.is_file() and not p.is_symlink() and allowed.isdisjoint(p.parents)]
    code = "import json, os, sys; print(json.dumps([p for p in json.load(open(0)) if os.access(p, os.R_OK)]))"
    ended = sites.try_as("site-a", ["python", "-c", code], text=json.dumps(files))
    readable = [path.removeprefix(f"{home}/") for path in json.loads(ended.stdout)]
    evidence("files of the lab", {"all": len(files), "readable for site-a": readable})
    assert len(files) > 100
    assert set(readable) <= {"lab.json", "supervisord.conf"}


def test_secrets_within_reach(told, sites, services, evidence):
    """A site holds the secret with which it logs in, and none of the others; the API server holds them all."""
    names = {
        "encryption key": "AIRFLOW__CORE__FERNET_KEY",
        "API secret key": "AIRFLOW__API__SECRET_KEY",
        "database password": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "login secret of the site": "AIRFLOW__API_AUTH__JWT_SECRET",
    }
    central = psutil.Process(int(services.incarnation("api-server").id)).environ()
    own = sites.worker("site-a").environ()
    rows = [{"secret": name, "site": key in own, "API server": key in central} for name, key in names.items()]
    evidence("secrets", rows)
    assert all(row["API server"] for row in rows)
    assert told["look_for_secrets"] == {row["secret"]: row["site"] for row in rows}
    assert [row["secret"] for row in rows if row["site"]] == ["login secret of the site"]
    held = set(own.values())
    leaked = [row["secret"] for row in rows if not row["site"] and central[names[row["secret"]]] in held]
    assert not leaked, f"under another name, the site was given: {', '.join(leaked)}"


def test_tasks_of_one_site_share_its_user(told, sites, evidence):
    """The limit of this isolation: another task of the same site does read the file that was kept from others."""
    evidence("read at the same site", told["read_own"])
    assert told["read_own"] == {"site": "site-b", "text": "secret of site-b"}
    assert not sites.path("site-b", told["write"]["file"]).exists()
