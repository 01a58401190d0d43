"""# 35.1.3 Which executor runs this task?

Airflow does not hand a task the answer, but there are two ways to find it:

* **ask the configuration**: the task's own `executor=`, or else the first entry of `[core] executor`. This
  is what *should* run the task;
* **look at the process**: what started it. This is what *does* run the task.

They can disagree: a worker reads its own configuration, and many Kubernetes pod templates say
`LocalExecutor`.

**What to look for**: both answers in the log of `compare`, and in the graph the one branch that was taken.
Branching on the executor is for logs and tuning; a result that depends on it is not portable.
"""

import logging
import os

import psutil
from airflow.configuration import conf as core_conf
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

STARTED_BY = {
    "airflow scheduler": "LocalExecutor",
    "celery worker": "CeleryExecutor",
    "celeryd": "CeleryExecutor",
    "edge worker": "EdgeExecutor",
}
BRANCHES = {
    "LocalExecutor": ("on_local", "Every task shares this machine: files, network, memory and CPU."),
    "CeleryExecutor": ("on_celery", "The next task may run on another worker's machine: share no files."),
    "KubernetesExecutor": ("on_kubernetes", "This pod ends with the task: keep nothing in it."),
    "EdgeExecutor": ("on_edge", "This worker talks to Airflow over HTTP only: keep XComs small."),
    "unknown": ("on_unknown", "No known executor: assume nothing about it."),
}


def configured_executors() -> dict[str, str]:
    """Name → class, in order, of `[core] executor`: a comma-separated list of `Class`, `path` or `alias:path`."""
    entries = [entry.strip() for entry in conf.get("core", "executor").split(",")]
    return {entry.split(":")[0]: entry.split(":")[-1].split(".")[-1] for entry in entries}


def running_executor() -> str:
    """Name the executor by what started this process, the nearest ancestor first."""
    if "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ:
        return "KubernetesExecutor"
    for ancestor in psutil.Process().parents():
        for mark, executor in STARTED_BY.items():
            if mark in " ".join(ancestor.cmdline()):
                return executor
    return "unknown"


@dag(
    dag_id="35_01_03_check_current_executor",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    doc_md=__doc__,
)
def check_current_executor():
    @task
    def ask_configuration(ti=None):
        """The executor that should run this task, from `airflow.configuration` and from `airflow.sdk`."""
        log.info("airflow.configuration says [core] executor = %s", core_conf.get("core", "executor"))
        log.info("airflow.sdk.conf      says [core] executor = %s", conf.get("core", "executor"))
        configured = configured_executors()
        default = next(iter(configured))
        executor = configured.get(ti.task.executor or default, ti.task.executor)
        log.info("This task says executor=%s, the default is %s: so %s.", ti.task.executor, default, executor)
        return {"configured": list(configured), "requested": ti.task.executor, "executor": executor}

    @task
    def look_at_process():
        """The executor that does run this task, from the process that started it."""
        executor = running_executor()
        log.info("What started pid %s belongs to %s.", os.getpid(), executor)
        return {"executor": executor, "pid": os.getpid()}

    @task
    def compare(configuration, process):
        """Logs both answers: the line to look for when a task fails on one executor only."""
        agree = configuration["executor"] == process["executor"]
        log.info("configured: %s, running: %s", configuration["executor"], process["executor"])
        if not agree:
            log.warning("They differ: this worker's configuration is not the scheduler's. Trust the process.")
        return {"executor": process["executor"], "agree": agree}

    @task.branch
    def choose(answer):
        """Conditional logic: follow the branch of the executor that runs this DAG."""
        branch, _ = BRANCHES.get(answer["executor"], BRANCHES["unknown"])
        log.info("Following the branch %s; the others are skipped.", branch)
        return branch

    @task
    def advise(advice):
        """What this executor means for the code of a task."""
        log.info(advice)
        return advice

    chosen = choose(compare(ask_configuration(), look_at_process()))
    chosen >> [advise.override(task_id=branch)(advice) for branch, advice in BRANCHES.values()]


check_current_executor()
