"""# 35.6.1 Tasks at the edge

The edge executor sends tasks nowhere: it writes them down as jobs, and a worker at a **site** asks for them, over
HTTP. So a site opens no port, and reaches one address.

    scheduler ─▶ jobs ─▶ API server ◀── HTTP ── edge worker ─▶ supervisor ─▶ your function
                                                └──────────────── the site ─────────────┘

| | Celery worker | edge worker |
| --- | --- | --- |
| gets its tasks | from a broker | asks the API server, every `[edge] job_poll_interval` seconds |
| must reach | broker, result backend, API server | API server |
| is reached | on its log port | not at all: it pushes its logs |
| suits | many short tasks of one data centre | few tasks that must run at a certain place |

What makes this possible is the **Task SDK** (`airflow.sdk`): your function never talks to Airflow itself. It asks
its supervisor, the process that started it, and that one calls the **Task Execution API** of the API server.

| use case | why there |
| --- | --- |
| IoT | the sensors stand there; readings stay, a summary leaves |
| machine learning | the GPU, or the data that may not leave, is there |
| specialized hardware | a camera, a controller, a licence that is bound to one machine |

**What to look for**: the processes in the log of `remote_execution`, the requests in that of
`task_execution_api`, and the *Hostname* of each use case: its queue has chosen the site.
"""

import logging
import os
import time
from pathlib import Path

import psutil
from airflow.sdk import Param, Variable, conf, dag, task

log = logging.getLogger("airflow.task")

USE_CASES = {"iot": "site_a", "machine_learning": "site_b", "specialized_hardware": "site_b"}
"""Use case → the queue that the fitting site serves."""

DEVICES = ("nvidia*", "accel*", "video*", "ttyUSB*")
"""GPUs, TPUs, cameras and serial converters, as they show in /dev."""

SETTINGS = {
    "metadata database": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "broker": "AIRFLOW__CELERY__BROKER_URL",
    "result backend": "AIRFLOW__CELERY__RESULT_BACKEND",
    "encryption key": "AIRFLOW__CORE__FERNET_KEY",
    "API server": "AIRFLOW__EDGE__API_URL",
    "login secret": "AIRFLOW__API_AUTH__JWT_SECRET",
}


def given(variable):
    """Whether this process was given a setting; the database's holds a placeholder in every task."""
    return not os.environ.get(variable, "airflow-db-not-allowed").startswith("airflow-db-not-allowed")


@dag(
    dag_id="35_06_01_edge_executor_concepts",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "seconds": Param(2, type="number", minimum=0, maximum=60, description="how long to use the API"),
    },
    doc_md=__doc__,
)
def edge_executor_concepts():
    @task
    def remote_execution(ti=None):
        """Where this runs: the site, its user and home, and the processes between the worker and this code."""
        processes = [psutil.Process(), *psutil.Process().parents()]
        names = ["your function", "its supervisor", "the edge worker"]
        for process, name in zip(processes, names, strict=False):
            log.info("%-16s pid %s: %s", name, process.pid, " ".join(process.cmdline())[:80])
        home = os.environ["AIRFLOW_HOME"]
        log.info("Site %s, user id %s, AIRFLOW_HOME %s", ti.hostname, os.getuid(), home)
        pids = [process.pid for process in processes[: len(names)]]
        return {"site": ti.hostname, "uid": os.getuid(), "home": home, "pids": pids}

    @task
    def task_execution_api(params=None, ti=None):
        """Uses Airflow for a while; this process opens no connection, its supervisor sends the requests."""
        base, connections = conf.get("core", "execution_api_server_url"), 0
        inherited = {each.fd for each in psutil.Process().net_connections("inet")}  # its worker's, open when it began
        ti.xcom_push(key="note", value="from the edge")
        Variable.get("35_06_01_not_there", default=None)
        until = time.monotonic() + params["seconds"]
        while time.monotonic() < until:  # meanwhile the supervisor reports that this task is alive
            now = {each.fd for each in psutil.Process().net_connections("inet")}
            connections = max(connections, len(now - inherited))
            time.sleep(0.1)
        requests = {
            "before this function": f"PATCH task-instances/{ti.id}/run",
            "ti.xcom_push(…)": f"POST xcoms/{ti.dag_id}/{ti.run_id}/{ti.task_id}/note",
            "Variable.get(…)": "GET variables/35_06_01_not_there",
            "while it runs": f"PUT task-instances/{ti.id}/heartbeat",
            "after this function": f"PATCH task-instances/{ti.id}/state",
        }
        for cause, request in requests.items():
            log.info("%-20s ▶ %s", cause, request)
        log.info("The address of all these is %s; connections of this process: %s", base, connections)
        return {"base": base, "requests": list(requests.values()), "connections": connections}

    @task
    def compare_workers():
        """What this worker was given, and what a worker of another executor would have needed."""
        found = {name: given(variable) for name, variable in SETTINGS.items()}
        for name, there in found.items():
            log.info("%-18s %s", name, "given" if there else "not given")
        log.info("A Celery worker needs the broker and the result backend too, and all can reach it for its logs.")
        return found

    @task
    def use_case(name, ti=None):
        """Runs where its queue is served, and looks at what is there."""
        devices = sorted(str(path) for kind in DEVICES for path in Path("/dev").glob(kind))
        log.info("%s: queue %s is served by site %s.", name, ti.queue, ti.hostname)
        log.info("There: %s CPUs, special devices: %s", os.cpu_count(), ", ".join(devices) or "none")
        return {"use_case": name, "queue": ti.queue, "site": ti.hostname, "devices": devices}

    @task
    def summary(cases):
        """Which site does what."""
        for case in cases:
            log.info("%(use_case)-22s ▶ queue %(queue)-8s ▶ site %(site)s", case)
        return {case["use_case"]: case["site"] for case in cases}

    remote_execution()
    task_execution_api()
    compare_workers()
    summary([use_case.override(task_id=name, queue=queue)(name) for name, queue in USE_CASES.items()])


edge_executor_concepts()
