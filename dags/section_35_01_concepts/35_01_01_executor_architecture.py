"""# 35.1.1 The executor's place in Airflow

The **scheduler** decides *that* a task may run. The **executor**, a part of the scheduler process, decides
*where* it runs. The **worker** is the process that runs it.

    scheduler ──▶ executor ──▶ worker ──▶ supervisor ──▶ your function

Three tasks look at one station each, from the inside; the last one draws the path they saw.

**What to look for**: in the log of `execution_path`, the picture with real process ids. Then open *Details*
of a task instance: its pid is the one that the task itself logged.
"""

import logging
import os
import socket

import psutil
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")


def title(process: psutil.Process) -> str:
    """Name a process by the first four words of its command line: what follows may hold a token."""
    try:
        return " ".join(" ".join(process.cmdline()).split()[:4]) or process.name()
    except psutil.AccessDenied:
        return process.name()


@dag(
    dag_id="35_01_01_executor_architecture",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    doc_md=__doc__,
)
def executor_architecture():
    @task
    def scheduler(ti=None, dag_run=None):
        """Station 1: how long the scheduler, the executor and the start of a process took together."""
        waited = (ti.start_date - dag_run.start_date).total_seconds()
        log.info("The scheduler started run %s at %s.", dag_run.run_id, dag_run.start_date)
        log.info("This task started %.2f s later: scheduled, queued, taken by a worker.", waited)
        return {"run_id": dag_run.run_id, "waited_seconds": waited}

    @task
    def executor(ti=None):
        """Station 2: which executor was asked to run this task."""
        configured = [name.strip() for name in conf.get("core", "executor").split(",")]
        asked = (ti.task.executor or configured[0]).split(":")[-1].split(".")[-1]
        log.info("[core] executor lists: %s. The first is the default.", configured)
        log.info("This task says executor=%s, so it goes to %s.", ti.task.executor, asked)
        log.info("Its queue is %r: only CeleryExecutor and EdgeExecutor choose workers by it.", ti.queue)
        return {"configured": configured, "executor": asked, "queue": ti.queue}

    @task
    def worker():
        """Station 3: the process that runs this function, and who started it."""
        processes = [psutil.Process(), *psutil.Process().parents()]
        for process in processes:
            log.info("pid %s: %s", process.pid, title(process))
        log.info("The first line is this task. Read down: each line was started by the one below it.")
        return {
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "processes": [{"pid": process.pid, "title": title(process)} for process in processes],
        }

    @task
    def execution_path(scheduler, executor, worker):
        """The three stations as one picture."""
        processes = [f"{process['pid']}: {process['title']}" for process in reversed(worker["processes"])]
        path = [
            f"scheduler   started {scheduler['run_id']}",
            f"executor    {executor['executor']}, queue {executor['queue']}",
            f"worker      host {worker['hostname']}",
            *(f"process     {process}" for process in processes),
            "your code   the function worker()",
        ]
        for step in path:
            log.info("  ▼ %s", step)
        return {"executor": executor["executor"], "path": path}

    stations = scheduler(), executor(), worker()
    stations[0] >> stations[1] >> stations[2]
    execution_path(*stations)


executor_architecture()
