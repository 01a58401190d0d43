"""A task at a site reaches the API and nothing else: not the database, not another site, not the deployment's secrets.

Hint: `/proc/<pid>/environ` of a site's worker shows what it was given; `ss -tnp` shows to whom it is connected.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from airflow_client.client import VariableApi

from components.platforms.process import closed_ports
from labs.airflow import AirflowError
from labs.paths import run_directory
from labs.processes import number
from labs.waiting import until
from scenarios.machine import remotes
from scenarios.network import answers, service_address
from scenarios.observing import Observation
from scenarios.sites import own_users

pytestmark = pytest.mark.needs(executor="EdgeExecutor")

DAG = "35_06_05_task_isolation"
NOTE = "35_06_05_note"

LISTENING = 8099
"""A port on which a site listens for as long as the other one tries it."""


@pytest.fixture(scope="module")
def addresses(lab):
    """Where services of the lab know each other, by role."""
    api = urlsplit(lab.outputs["internal_api_url"]).netloc
    return {"api-server": api, "metadata-database": lab.outputs["services"]["metadata-database"][0]["endpoints"]["sql"]}


def closed(platform):
    """The error of whoever connects to a service that is closed to it; what the machine lacks for that skips."""
    if platform in ("docker", "kubernetes"):
        return "gaierror"  # its network, or its namespace, has no such name
    if not closed_ports.supported():
        pytest.skip("needs Landlock's rules for TCP, as Linux 6.7 has: without, only its password keeps sites out")
    return "PermissionError"


@pytest.fixture(scope="module")
def isolated(lab, airflow, sites, services, addresses, requests_since, timeline):
    """A run, and what its machine showed meanwhile: environments, connections, and the scheduler's for comparison."""
    if lab.outputs.get("cluster", {}).get("kind") == "context":
        pytest.skip("needs sites whose processes this machine sees; those in a cluster of the user's it does not")
    requests, seen = requests_since(), {"environments": {}, "sites to": set(), "scheduler to": set()}

    def watch(_):
        own = [(name, process) for name in ("site-a", "site-b") for process in sites.processes(name)]
        for name, process in own:
            try:
                seen["environments"][f"{name} {number(process)}"] = process.environ()
            except psutil.NoSuchProcess:
                continue
        seen["sites to"] |= set(remotes(process for _, process in own).values())
        seen["scheduler to"] |= set(remotes(services.incarnation("scheduler").parts).values())

    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    run = airflow.trigger(DAG, {"seconds": 3, "addresses": list(addresses.values())})
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


def test_the_database_is_closed_to_a_task(told, addresses, lab, evidence):
    """A task that is told the database's address is refused when it connects; the API server takes its connection."""
    answers = told["connect"]
    evidence("answers to the task", answers)
    assert answers[addresses["api-server"]] == "", f"the API server does not answer either: {answers}"
    assert answers[addresses["metadata-database"]].startswith(closed(lab.platform)), f"the task was answered {answers}"


@pytest.mark.needs(local="processes")
def test_the_password_does_not_help_a_site(sites, addresses, lab, services, evidence):
    """With the right password a site gets no further than without: the way is closed to it, not to the scheduler."""
    host, _, port = addresses["metadata-database"].rpartition(":")
    scheduler = psutil.Process(int(services.incarnation("scheduler").id))
    user, password = (
        scheduler.environ()["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].partition("//")[2].split("@")[0].split(":")
    )
    code = (
        "import psycopg2, sys; psycopg2.connect(host=sys.argv[1], port=sys.argv[2], user=sys.argv[3], dbname='airflow')"
    )
    command = ["python", "-c", code, host, port, user]
    attempts = {
        "from the scheduler, the right one": services.run("scheduler", command, PGPASSWORD=password),
        "from a site, no password": sites.try_as("site-a", command),
        "from a site, the right one": sites.try_as("site-a", command, PGPASSWORD=password),
    }
    answers = {
        how: ended.stderr.strip().rpartition("Error: ")[2] if ended.returncode else "accepted"
        for how, ended in attempts.items()
    }
    evidence("answers", answers)
    assert answers.pop("from the scheduler, the right one") == "accepted", "the attempts show nothing"
    assert answers["from a site, no password"] != "accepted"
    refusal = {"gaierror": "could not translate host name", "PermissionError": "Permission denied"}[
        closed(lab.platform)
    ]
    assert all(refusal in answer for answer in answers.values()), f"a site got further than it should: {answers}"


@pytest.mark.needs(platform="docker", because="processes share one network, and in a cluster policies rule")
def test_a_site_reaches_no_service_but_the_api(services, lab, evidence):
    """From its own network, no name and no address of another service leads anywhere; from the scheduler's, all do."""
    attempt = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"

    def answer(service, host, port):
        ended = services.run(service, ["python", "-c", attempt, host, port])
        return (ended.stderr.strip().splitlines() or ["reached"])[-1]

    rows = []
    for replica in (replica for group in lab.outputs["services"].values() for replica in group):
        for host, _, port in (address.rpartition(":") for address in replica["endpoints"].values()):
            for target in (host, services.host(host)) if host == replica["name"] else ():
                answers = {who: answer(who, target, port) for who in ("scheduler", "site-a")}
                rows.append({"service": host, "asked for": target, **answers})
    evidence("answers", rows)
    api = urlsplit(services.incarnation("site-a").parts[0].environ()["AIRFLOW__EDGE__API_URL"])
    assert answer("site-a", api.hostname, str(api.port)) == "reached", "the attempts show nothing"
    assert {"metadata-database"} <= {row["service"] for row in rows}
    for row in rows:
        assert row["scheduler"] == "reached", f"nobody reaches that: {row}"
        by_name = row["asked for"] == row["service"]
        wanted = "socket.gaierror" if by_name else "TimeoutError"
        assert row["site-a"].startswith(wanted), f"site-a is on a network with {row}"


@pytest.mark.needs(platform="kubernetes")
def test_the_network_lets_a_site_reach_the_api_server_alone(policies_kept, lab, services, namespace, evidence):
    """By address, as names are not needed for it: neither the lab's services, nor the cluster, nor the other site."""
    host, ports = services.host, {"api-server": 8080, "metadata-database": 5432}
    places = {name: f"{host(name)}:{port}" for name, port in ports.items()}
    places["Kubernetes API"] = service_address(namespace.beside("default"), "kubernetes:443")
    places["site-b"] = f"{host('site-b')}:{LISTENING}"
    own = partial(services.run, "site-b")

    def listens():
        told = answers(own, [places["site-b"]])[places["site-b"]]
        return (None if told else True), told or "it listens"

    with ThreadPoolExecutor() as pool:
        listener = pool.submit(own, ["timeout", "30", "python", "-m", "http.server", str(LISTENING)])
        until(listens, what="site-b to listen", timeout=20)
        told = answers(partial(services.run, "site-a"), list(places.values()))
        assert listens()[0] and not listener.done(), "site-b did not listen for as long as it was tried"
    found = {name: told[address] or "reached" for name, address in places.items()}
    evidence("answers to the site", found)
    assert found.pop("api-server") == "reached", "the site does not reach the API server either: this shows nothing"
    assert "reached" not in found.values(), f"a site gets further than to the API server: {found}"


@pytest.mark.needs(platform="kubernetes")
def test_nor_does_the_password_help_at_the_right_address(policies_kept, services, evidence):
    """With the right address and the right password a site is kept from the database, which lets the scheduler in."""
    url = services.run("scheduler", ["printenv", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).stdout
    user, password = url.partition("//")[2].split("@")[0].split(":")
    host, code = services.host("metadata-database"), "import psycopg2, sys; psycopg2.connect(sys.argv[1])"
    command = ["python", "-c", code, f"host={host} user={user} dbname=airflow connect_timeout=5"]
    attempts = {name: services.run(name, command, PGPASSWORD=password) for name in ("scheduler", "site-a")}
    told = {
        name: ended.stderr.strip().rpartition("Error: ")[2] if ended.returncode else "accepted"
        for name, ended in attempts.items()
    }
    evidence("answers", told)
    assert told["scheduler"] == "accepted", f"the attempts show nothing: {told}"
    assert any(each in told["site-a"] for each in ("refused", "timeout expired")), f"the site was answered {told}"


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
