"""# 35.6.5 What a task at a site cannot do

| a task tries | what stops it |
| --- | --- |
| to use Airflow's database through its models | the Task SDK: an error, on every executor |
| to connect to the database by itself | it knows no address and no password; a firewall, or here the kernel |
| to read another site's files or end its worker | another machine, or here another OS user |
| to read Airflow's encryption key or API secret | the site does not have them |

What it can do, it asks of the Task Execution API: variables, connections, XComs, its own state. That API is also
the one place to log and to limit what tasks do.

**Know the limits.** A task runs as its worker's user: tasks of *one* site are not isolated from each other, and can
read the secret with which their site logs in, so a site is as trusted as the least trusted of its tasks. Variables
and connections are no tenant's own: a task may read any of them. So give each tenant sites and queues of its own, and
see multi-team deployments and `[edge] trusted_jwks_url` for more.

**What to look for**: each refusal, in Airflow's or the system's own words, in the logs of `use_models`,
`read_foreign` and `look_for_secrets`; and that `read_own` is *not* refused.
"""

import logging
import os
import socket
import time
from pathlib import Path

import psutil
from airflow.sdk import Param, Variable, conf, dag, task

log = logging.getLogger("airflow.task")

NOTE = "35_06_05_note"
"""The name of an Airflow variable, and of a file at site B."""


def refusal(attempt):
    """What an attempt is answered with: the type and the words of the error, "" when it succeeds."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@dag(
    dag_id="35_06_05_task_isolation",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    max_active_runs=1,
    params={
        "seconds": Param(2, type="number", minimum=0, maximum=60, description="how long use_models goes on"),
        "addresses": Param([], type="array", items={"type": "string"}, description="host:port, to connect to each"),
    },
    doc_md=__doc__,
)
def task_isolation():
    @task(queue="site_a")
    def use_models(params=None):
        """Tries Airflow's database session, and looks for the database's address and connections."""

        def open_session():
            from airflow.settings import Session

            Session()

        answer, connections = refusal(open_session), 0
        log.info("Opening a database session: %s", answer or "it was opened")
        address = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        log.info("The database's address, as this task knows it: %s", address)
        until = time.monotonic() + params["seconds"]
        while time.monotonic() < until:  # so that others can look at this process
            connections = max(connections, len(psutil.Process().net_connections("inet")))
            time.sleep(0.1)
        log.info("Connections that this process had: %s", connections)
        return {"answer": answer, "address": address, "connections": connections}

    @task(queue="site_a")
    def connect(params=None):
        """Tries to connect to whatever addresses it is given: a site should reach the API, and no other service."""
        answers = {}
        for address in params["addresses"]:
            host, _, port = address.rpartition(":")
            answers[address] = refusal(lambda to=(host, int(port)): socket.create_connection(to, timeout=5).close())
            log.info("Connecting to %s: %s", address, answers[address] or "it was accepted")
        return answers

    @task(queue="site_b")
    def write(ti=None):
        """Leaves a variable, through the API, and a file that is readable for its own user only."""
        Variable.set(NOTE, f"from {ti.hostname} in {ti.run_id}")
        file = Path(os.environ["AIRFLOW_HOME"], NOTE)
        file.touch(mode=0o600)
        file.write_text(f"secret of {ti.hostname}")
        log.info("Wrote variable %s and file %s, as user %s.", NOTE, file, os.getuid())
        return {
            "site": ti.hostname,
            "user": os.getuid(),
            "file": str(file),
            "worker": psutil.Process().parents()[1].pid,
        }

    @task(queue="site_a")
    def read_foreign(written, ti=None):
        """Reads the other site's variable, which the API gives to all; its file and its worker are out of reach."""
        note = Variable.get(NOTE)
        log.info("Variable %s, through the API: %r", NOTE, note)
        answers = {
            "read its file": refusal(Path(written["file"]).read_text),
            "signal its worker": refusal(lambda: os.kill(written["worker"], 0)),
        }
        for attempt, answer in answers.items():
            log.info("User %s of %s tries to %s: %s", os.getuid(), ti.hostname, attempt, answer or "not refused")
        if os.getuid() == written["user"]:
            log.warning("Both sites run as one user here, so the system keeps them apart only when root starts them.")
        return {"site": ti.hostname, "user": os.getuid(), "note": note, "answers": answers}

    @task(queue="site_b")
    def read_own(written, ti=None):
        """Another task of the same site reads the file: no tenant is isolated from those of its own site."""
        file = Path(written["file"])
        text = file.read_text()
        file.unlink()
        Variable.delete(NOTE)
        log.info("User %s of %s read %r, and removed it.", os.getuid(), ti.hostname, text)
        return {"site": ti.hostname, "text": text}

    @task(queue="site_a")
    def look_for_secrets():
        """Which of the deployment's secrets this task could read: the fewer, the less is lost with a site."""
        within_reach = {
            "encryption key": "AIRFLOW__CORE__FERNET_KEY" in os.environ,
            "API secret key": "AIRFLOW__API__SECRET_KEY" in os.environ,
            "database password": "@" in os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"],
            "login secret of the site": bool(conf.get("api_auth", "jwt_secret")),
        }
        for name, there in within_reach.items():
            log.info("%-26s %s", name, "within reach" if there else "not at this site")
        return within_reach

    use_models()
    connect()
    look_for_secrets()
    written = write()
    read_foreign(written) >> read_own(written)


task_isolation()
