"""A lab gets new secrets while tasks run and others wait: each is executed once, and the old secrets are worth nothing.

A task reports with a token that `[api_auth] jwt_secret` has signed, and the scheduler signs that of a task when it
queues it. So what was begun ends before, and what comes meanwhile is queued after, with a token of the new secret. A
connection or Variable that an old Fernet key has encrypted stays readable, as the old keys stand behind the new one.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/security/jwt_token_authentication.html and
https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/fernet.html

Hint: while it waits, the pools have no slots; `./lab up LAB` gives them back where `--rotate` was interrupted.
"""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow_client.client import PoolApi

from labs.waiting import until
from scenarios.changing import variable
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(platform="kubernetes", executor=("CeleryExecutor", "KubernetesExecutor"))

SECONDS = 40
"""How long each task works that runs when new secrets are asked for."""


def answer(url, token="", **body):
    """The status of an answer, and what it says."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, {}


def test_tasks_are_executed_once_and_old_secrets_are_refused(lab, airflow, faults, services, start_probe, evidence):
    """Those that ran ended before, those that waited began after; passwords and tokens of before are refused."""
    url, pools = lab.outputs["api_url"], PoolApi(airflow.client)
    user, password = lab.outputs["admin_user"], lab.outputs["admin_password"]
    slots = {pool.name: pool.slots for pool in airflow.call(pools.get_pools).pools}

    def logged_in(password):
        return answer(f"{url}/auth/token", username=user, password=password)

    def database(password):
        command = ["psql", "-h", "127.0.0.1", "-U", "airflow", "-tAc", "select 1", "airflow"]
        return services.run("metadata-database", command, PGPASSWORD=password).stdout.strip()

    def begin_when_held():
        def held():
            there = airflow.call(pools.get_pool, pool_name="default_pool").slots
            return (True if there == 0 else None), f"{there} slots"

        until(held, what="the pools to have no slots", timeout=120, interval=0.3)
        return start_probe("probe_results", {"seconds": 1})

    before, token = logged_in(password)
    token = token["access_token"]
    first = start_probe("probe_retries", {"seconds": SECONDS})
    first.wait_for_executions(2, timeout=90)
    with variable(airflow, "of_before", "readable"), ThreadPoolExecutor(1) as beside, late_fails():
        waiting = beside.submit(begin_when_held)
        with faults.secrets_rotated(lab) as rotation:
            second = waiting.result()
            run, later = airflow.wait(first.run, 60), airflow.wait(second.run, 180)
            new = rotation.news["passwords.json of airflow-passwords-json"]
            old_sql, new_sql = (each["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] for each in (rotation.olds, rotation.news))
            answers = {
                "old password": logged_in(password)[0],
                "new password": logged_in(new)[0],
                "token of before": answer(f"{url}/api/v2/pools", token)[0],
                "database, old password": database(old_sql),
                "database, new password": database(new_sql),
            }
            kept = answer(f"{url}/api/v2/variables/of_before", logged_in(new)[1]["access_token"])
            shown = faults.shown(rotation)
    ended, begun = [each.ended for each in first.executions()], [each.started for each in second.executions()]
    now = {pool.name: pool.slots for pool in airflow.call(pools.get_pools).pools}
    evidence("secrets that are others", sorted(rotation.olds))
    evidence("answers", answers)
    evidence(
        "seconds after the first pod with new secrets",
        {"last ended": max(ended) - rotation.at, "first began": min(begun) - rotation.at},
    )
    evidence("tasks", [*first.account(), *second.account()])
    assert before == 201, "the login of before was refused before: nothing is shown"
    assert max(ended) < rotation.at, "a task still ran when the first pod with new secrets was made"
    assert min(begun) > rotation.at, "a task began before there were new secrets"
    assert (run.state, later.state) == ("success", "success"), airflow.explain(run) + airflow.explain(later)
    assert set(first.outcome().values()) | set(second.outcome().values()) == {("success", 1, 1, 1)}, (
        "lost, or run twice"
    )
    assert answers.pop("token of before") in (401, 403), "a token of the old secret is taken"
    assert answers == {
        "old password": 401,
        "new password": 201,
        "database, old password": "",
        "database, new password": "1",
    }
    assert kept[0] == 200 and "readable" in kept[1]["value"], "what an old key encrypted is lost"
    assert shown == [], f"a secret can be read in {', '.join(shown)}"
    assert now == slots, "the pools have not got their slots back"
