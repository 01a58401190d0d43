"""The edge executor is configured in three places: scheduler, API server and site; only a signed request gets in.

Hint: a site that cannot log in ends at once and says so in its log; compare `[api_auth] jwt_secret` there.
"""

import json
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.platforms.process.users import give
from labs.service_logs import service_logs
from scenarios.sites import LOST, UP
from stacks.catalogue import find_lab

pytestmark = pytest.mark.needs(executor="EdgeExecutor", local="processes")


@pytest.fixture(scope="module")
def configured(run_dag):
    """One run."""
    return run_dag()


def status_of(url, headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_the_edge_executor_runs_the_tasks(configured, sites, lab, evidence):
    """The setting that the site reads is the deployment's, and each task of the run was a job of the edge executor."""
    told = configured.xcom("executor")["executor"]
    jobs = {job.task_id: job for job in sites.jobs(configured.run)}
    evidence("[core] executor", told)
    evidence("jobs", [vars(job) for job in jobs.values()])
    assert told == ",".join(lab.executors)
    for ti in configured.instances:
        assert jobs[ti.task_id].worker == ti.hostname, f"{ti.task_id} ran at another site than the one that fetched it"


def test_each_site_is_registered_and_reports(sites, lab, evidence):
    """Airflow knows each site with the queues and the capacity it was started with, and hears of it again and again."""
    wanted, known = find_lab(lab.outputs["lab"]).sites, sites.all()
    before = {name: known[name].heartbeat for name in wanted}
    again = {
        name: sites.wait(name, lambda site: site.heartbeat > before[site.name], what="heard of") for name in wanted
    }
    rows = [{**vars(site), "heartbeat before": before[name]} for name, site in again.items()]
    evidence("workers", rows)
    for name, site in again.items():
        assert site.state in UP, f"{name} is {site.state}"
        assert site.queues == tuple(sorted(wanted[name].queues)), f"{name} serves {', '.join(site.queues)}"
        assert site.concurrency == wanted[name].concurrency, f"{name} runs up to {site.concurrency} tasks"
        apart = (site.heartbeat - before[name]).total_seconds()
        assert apart < LOST, f"{name} was not heard of for {apart:.0f} s: by then it counts as lost"


def test_what_a_site_is_given(configured, sites, evidence):
    """The settings that the task lists are those its worker was started with, and what the worker itself derives."""
    told, given = configured.xcom("worker"), sites.worker("site-a").environ()
    derived = {"AIRFLOW__CORE__INTERNAL_API_URL", "AIRFLOW__CORE__HOSTNAME_CALLABLE"}
    settings = {name for name in given if name.startswith("AIRFLOW__")}
    evidence("settings", sorted(settings))
    assert set(told["settings"]) == settings | derived
    assert told["heartbeat"] == int(given["AIRFLOW__EDGE__HEARTBEAT_INTERVAL"])
    assert told["poll"] == int(given["AIRFLOW__EDGE__JOB_POLL_INTERVAL"])
    log = configured.log("worker")
    assert given["AIRFLOW_HOME"] in log and "asks for work" in log


def test_the_api_server_has_the_edge_api(configured, sites, lab, evidence):
    """The edge API is a part of the API server, at the address that the site was given."""
    told, given = configured.xcom("api_server"), sites.worker("site-a").environ()["AIRFLOW__EDGE__API_URL"]
    with urllib.request.urlopen(f"{lab.outputs['api_url']}{urlsplit(told['url']).path}", timeout=30) as answer:
        status = json.load(answer)["status"]
    evidence("edge API", {"address": told["url"], "told": told["status"], "from outside": status})
    assert told["url"] == given.replace("/rpcapi", "/health")
    assert told["status"] == status == "healthy"


def test_only_signed_requests_get_in(configured, airflow, lab, evidence):
    """Without a token, or with one that was signed otherwise or for another request, the answer is a refusal."""
    answers = configured.xcom("authentication")
    ti, client = configured.one("authentication"), airflow.client
    url = f"{lab.outputs['api_url']}/edge_worker/v1/logs/logfile_path/{ti.dag_id}/{ti.task_id}/{ti.run_id}/1/-1"
    outside = {
        "no token": status_of(url, {}),
        "an admin's token": status_of(url, {"Authorization": client.configuration.access_token}),
    }
    evidence("answers to the site", answers)
    evidence("answers from outside", outside)
    assert answers.pop("signed as the site does") == 200
    assert len(answers) == 3
    assert all(status in (401, 403, 422) for status in [*answers.values(), *outside.values()])


def test_the_secret_is_not_told(configured, sites, lab, evidence):
    """The secret with which the sites sign stands in no log, no command line, and no file that others can read."""
    secret = sites.worker("site-a").environ()["AIRFLOW__API_AUTH__JWT_SECRET"]
    logs = {name: log.read() for name, log in service_logs(lab.outputs).items()}
    logs |= {ti.task_id: configured.log(ti.task_id) for ti in configured.instances}
    lines = {f"command line of {p.pid}": " ".join(p.cmdline()) for name in sites.all() for p in sites.processes(name)}
    telling = [where for where, text in {**logs, **lines}.items() if secret in text]
    home = sites.home("site-a")
    readable = [str(path) for path in home.rglob("*") if path.is_file() and path.stat().st_mode & 0o044]
    evidence("looked at", {"logs": len(logs), "command lines": len(lines), "files open to others": readable})
    telling += [path for path in readable if secret in Path(path).read_text(errors="replace")]
    long = len(secret) >= 64  # not compared below, where a failure would show it
    assert long, "the secret is shorter than its signature's hash"
    assert not telling, f"the secret stands in {', '.join(telling)}"


def test_a_worker_with_another_secret_is_refused(sites, airflow, service_log, exchange, evidence):
    """A worker that signs with another secret ends at once, the API server and it say why; no site takes notice."""
    answered = service_log("api-server")
    before = {name: sites.worker(name).pid for name in sites.all()}
    (exchange / "home").mkdir()
    give(exchange / "home", sites.worker("site-b").uids().real)
    ended = sites.try_as(
        "site-b",
        ["airflow", "edge", "worker", "--edge-hostname", "site-x", "--queues", "site_b", "--concurrency", "1"],
        AIRFLOW_HOME=str(exchange / "home"),
        AIRFLOW__API_AUTH__JWT_SECRET="x" * 64,
    )
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if "403" in line]
    refused = [line for line in answered().splitlines() if "site-x" in line and "status_code=403" in line]
    evidence("the worker", {"exit code": ended.returncode, "said": said[-1:]})
    evidence("the API server", refused[-1:])
    assert ended.returncode != 0
    assert said, f"it did not say that it was refused:\n{ended.stdout}{ended.stderr}"
    assert refused, "the API server did not log that it refused it"
    assert {name: sites.worker(name).pid for name in sites.all()} == before, "the refused worker left something behind"
    assert airflow.health()["scheduler"].status == "healthy"
