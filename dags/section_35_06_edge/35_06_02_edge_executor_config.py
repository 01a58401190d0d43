"""# 35.6.2 Configuring the edge executor

| where | setting | what for |
| --- | --- | --- |
| everywhere | `[core] executor = airflow.providers.edge3.executors.EdgeExecutor` | a path: it has no short name |
| API server | `[edge] api_enabled = True` | else it has no edge API; off by default |
| API server, site | `[api_auth] jwt_secret`, the same | a site signs its requests with it |
| site | `[edge] api_url = http://…/edge_worker/v1/rpcapi` | the one address that a site needs |
| site | `[edge] heartbeat_interval`, `job_poll_interval` | how often it reports, and asks for work |

The database needs nothing: `airflow db migrate` makes the edge executor's tables too. At the site:

    airflow edge worker --edge-hostname site-a --queues default,site_a --concurrency 2

**Authentication**: each request carries a token that the site signs with the secret, for this request alone and
for seconds. Whoever has the secret can sign for *any* request: guard it at each site as you do in the data centre,
or let sites log in at an identity provider (`[edge] trusted_jwks_url`). Outside of a lab, use https.

**What to look for**: the answers in the log of `authentication`: only the right token for the right request is
accepted. `worker` lists every setting that the site was given: that is all.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import time
import urllib.error
import urllib.request

from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")


def token(secret, path):
    """A token as a site signs it for one request (JWT, RFC 7519), valid for ten seconds."""

    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    now = int(time.time())
    claims = {"aud": "api", "iat": now, "nbf": now, "exp": now + 10, "method": path}
    parts = [{"alg": "HS512", "typ": "JWT"}, claims]
    text = b".".join(encode(json.dumps(part).encode()) for part in parts)
    return (text + b"." + encode(hmac.new(secret.encode(), text, hashlib.sha512).digest())).decode()


def status_of(url, headers):
    """The HTTP status with which a GET is answered."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


@dag(
    dag_id="35_06_02_edge_executor_config",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def edge_executor_config():
    @task
    def executor():
        """The executor that the site's configuration names; a site must name what the scheduler does."""
        value = conf.get("core", "executor")
        log.info("[core] executor = %s", value)
        return {"executor": value}

    @task
    def worker(ti=None):
        """The worker that runs this, and every Airflow setting that it was given."""
        given = sorted(name for name in os.environ if name.startswith("AIRFLOW__"))
        given = [name for name in given if not name.endswith("__SQL_ALCHEMY_CONN")]  # a placeholder of each task
        log.info("Site %s works from %s", ti.hostname, os.environ["AIRFLOW_HOME"])
        for name in given:
            log.info("%s = %s", name, "(secret)" if name.endswith("SECRET") else os.environ[name])
        heartbeat, poll = conf.getint("edge", "heartbeat_interval"), conf.getint("edge", "job_poll_interval")
        log.info("It reports every %s s, and asks for work every %s s.", heartbeat, poll)
        return {"site": ti.hostname, "settings": given, "heartbeat": heartbeat, "poll": poll}

    @task
    def api_server():
        """Asks the edge API how it is: there is one only where `[edge] api_enabled` is on."""
        url = conf.get("edge", "api_url").replace("rpcapi", "health")
        with urllib.request.urlopen(url, timeout=30) as answer:
            status = json.load(answer)["status"]
        log.info("%s says: %s", url, status)
        return {"url": url, "status": status}

    @task
    def authentication(ti=None):
        """Sends one harmless request with four tokens, as a site and as others would."""
        path = f"logs/logfile_path/{ti.dag_id}/{ti.task_id}/{ti.run_id}/{ti.try_number}/{ti.map_index}"
        url, secret = conf.get("edge", "api_url").replace("rpcapi", path), conf.get("api_auth", "jwt_secret")
        tokens = {
            "no token": {},
            "signed with another secret": {"Authorization": token("guessed", path)},
            "signed for another request": {"Authorization": token(secret, "jobs/fetch")},
            "signed as the site does": {"Authorization": token(secret, path)},
        }
        answers = {name: status_of(url, headers) for name, headers in tokens.items()}
        for name, status in answers.items():
            log.info("%-28s ▶ %s %s", name, status, "accepted" if status == 200 else "refused")
        return answers

    executor()
    worker()
    api_server()
    authentication()


edge_executor_config()
