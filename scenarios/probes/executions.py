"""# Tasks that leave a file for each time they are executed

Not part of the curriculum: a scenario deploys it into a running lab for as long as it needs it.

What Airflow records of a task is what Airflow believes. These tasks write, each time one is executed, a file of
their own into a folder that the run's configuration names, so that executions are counted where they happen.
They last until a file `release` appears there, or one `release-NAME` for the service that executes them.
"""

import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Param, dag, task

PARAMS = {
    "folder": Param("", type="string", description="where each execution leaves its file"),
    "seconds": Param(120, type="number", minimum=0, description="how long each waits for `release` at most"),
}


def execute(params, ti):
    """Leave a file that says who executes what since when, and at the end, until when; return who it was."""
    folder = Path(params["folder"])
    service = os.environ.get("AIRFLOW_LAB_SERVICE") or socket.gethostname()  # a task's pod goes by its own name
    where = {"service": service, "pid": os.getpid(), "worker": os.getppid()}
    who = {"task": ti.task_id, "try": ti.try_number, **where}
    seen = {**who, "started": time.time()}
    releases = [folder / "release", folder / f"release-{service}"]
    file = folder / f"{ti.task_id}-try{ti.try_number}-pid{os.getpid()}-{time.time_ns()}.json"

    def write(**more):
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({**seen, **more}))
        fresh.replace(file)

    write(ended=None)
    while not any(each.exists() for each in releases) and time.time() < seen["started"] + params["seconds"]:
        time.sleep(0.05)
    write(ended=time.time())
    return {"try": ti.try_number, "pid": os.getpid()}


def probe(dag_id, tasks, **limits):
    """A DAG of independent tasks: `tasks` gives the options of each, `limits` those of the DAG."""

    @dag(
        dag_id=dag_id,
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        tags=["probe"],
        params=PARAMS,
        doc_md=__doc__,
        **limits,
    )
    def independent_tasks():
        for task_id, options in tasks.items():

            @task(**{"task_id": task_id, "retry_delay": timedelta(seconds=1), "do_xcom_push": False, **options})
            def work(params=None, ti=None):
                """Leaves its file, then waits for `release`; what it returns becomes an XCom where that is asked."""
                return execute(params, ti)

            work()

    independent_tasks()


probe("probe_executions", {f"work_{number}": {} for number in range(1, 9)})
FIRST = {"priority_weight": 2}
probe("probe_results", {"telling": {"do_xcom_push": True, **FIRST}, "silent": FIRST, "later": {}})
probe("probe_retries", {"sturdy": {"retries": 1}, "fragile": {}})
probe("probe_heavy", {f"work_{number}": {"queue": "heavy_compute"} for number in range(1, 7)})
probe("probe_compute", {f"work_{number}": {"queue": "compute"} for number in range(1, 4)})
LATER = {"retries": 1, "retry_delay": timedelta(seconds=30)}
probe("probe_logs", {"sturdy": {"queue": "io_bound", **LATER}, "fragile": {"queue": "io_bound"}})
probe("probe_unserved", {"work": {"queue": "nobody"}})
probe("probe_too_large", {"work": {"pool_slots": 1000}})
probe("probe_pool_missing", {"work": {"pool": "probe_no_such_pool"}})
probe("probe_narrow", {"work_1": {}, "work_2": {}}, max_active_tasks=1)
probe("probe_serial", {"work": {}}, max_active_runs=1)
probe("probe_single", {"work": {"max_active_tis_per_dag": 1}})
probe("probe_past", {"work": {"depends_on_past": True}})
probe("probe_patient", {"work": {"retries": 1, "retry_delay": timedelta(minutes=10)}})
probe("probe_zone_a", {f"work_{number}": {"queue": "zone_a"} for number in (1, 2)})
probe("probe_zone_b", {f"work_{number}": {"queue": "zone_b"} for number in (1, 2)})
probe("probe_site_b", {f"work_{number}": {"queue": "site_b"} for number in range(1, 5)})
probe("probe_machine", {f"work_{number}": {"queue": "machine"} for number in (1, 2)})
probe("probe_many", {f"work_{number}": {} for number in range(1, 25)})
probe("probe_load", {f"work_{number}": {"retries": 2} for number in range(1, 6)}, max_active_runs=100)
probe("probe_again", {f"work_{number}": {"retries": 1} for number in range(1, 9)})
