"""# 35.7.3 An executor for each task

    @task(executor="CeleryExecutor")
    def quick(): ...

The choice belongs to the task, is made when the file is parsed (it cannot be a template), and is recorded
with the task instance. One DAG may mix executors: dependencies, XComs, retries and pools work across them.

| task | wants | because |
| --- | --- | --- |
| `plan`, `collect` | nothing: the default executor | no needs |
| `quick_…` | CeleryExecutor | short: a process that waits for them saves their start |
| `heavy`, `isolated` | KubernetesExecutor | large, or not to be trusted: a place of their own |

A name that is not in `[core] executor` is an import error of this whole file. So it asks for the first of
several that is configured: without Kubernetes, `heavy` and `isolated` go to EdgeExecutor, whose workers
live elsewhere too (in this lab under another user, with another home); without both, to the default.
`collect` logs each such choice.

**What to look for**: *Executor* in the details of the task instances, and in the log of `collect` what each
task wanted, what it was given and where it ran.
"""

import logging
import os

import psutil
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

STARTED_BY = {
    "airflow scheduler": "LocalExecutor",
    "celeryd": "CeleryExecutor",
    "celery worker": "CeleryExecutor",
    "edge worker": "EdgeExecutor",
}
WANTED = {
    "quick": ["CeleryExecutor"],
    "heavy": ["KubernetesExecutor", "EdgeExecutor"],
    "isolated": ["KubernetesExecutor", "EdgeExecutor"],
}
"""What kind of task wants which executors, the best first."""


def configured_executors():
    """Class → what to write as `executor=`, in order, of `[core] executor`: `Class`, `path` or `alias:path`."""
    entries = [entry.strip() for entry in conf.get("core", "executor").split(",")]
    return {entry.split(":")[-1].split(".")[-1]: entry.split(":")[0] for entry in entries}


def choose(kind):
    """The first executor that this kind of task wants and that is configured; None is the default executor."""
    configured = configured_executors()
    return next((configured[executor] for executor in WANTED[kind] if executor in configured), None)


def running_executor():
    """The executor that started this process, by its ancestors, the nearest first."""
    if "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ:
        return "KubernetesExecutor"
    commands = [" ".join(ancestor.cmdline()) for ancestor in psutil.Process().parents()]
    return next((name for command in commands for mark, name in STARTED_BY.items() if mark in command), "unknown")


def place(ti):
    """Where a task runs: what it asked for, what started it, and its surroundings."""
    found = {"task": ti.task_id, "asked": ti.task.executor, "ran_on": running_executor(), "hostname": ti.hostname}
    log.info("%(task)s: executor=%(asked)r ran on %(ran_on)s, host %(hostname)s", found)
    return {**found, "started_by": os.getppid(), "user": os.getuid()}


@dag(
    dag_id="35_07_03_task_executor_selection",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def task_executor_selection():
    @task
    def plan(ti=None):
        """Names no executor: the default one runs it."""
        return {"numbers": [3, 4, 5], "place": place(ti)}

    @task(executor=choose("quick"))
    def quick(number, planned, ti=None):
        """Short, and one of many."""
        return {"value": planned["numbers"][number - 1] ** 2, "place": place(ti)}

    @task(executor=choose("heavy"))
    def heavy(planned, ti=None):
        """Takes a whole CPU for a moment."""
        value = sum(number * step % 7 for number in planned["numbers"] for step in range(300_000))
        return {"value": value, "place": place(ti)}

    @task(executor=choose("isolated"))
    def isolated(planned, ti=None):
        """Runs code that should see nothing of the scheduler's machine."""
        found = place(ti)
        log.info("user id %s, AIRFLOW_HOME %s", found["user"], os.environ.get("AIRFLOW_HOME"))
        return {"value": sum(planned["numbers"]), "place": found}

    @task
    def collect(planned, quick, heavy, isolated, ti=None):
        """The results of three executors in one place; what each task wanted, was given, and where it ran."""
        default = next(iter(configured_executors()))
        places = [each["place"] for each in (planned, *quick, heavy, isolated)] + [place(ti)]
        fallbacks = {}
        for each in places:
            wanted = WANTED.get(each["task"].split("_")[0], [default])[0]
            log.info("%s wanted %s, ran on %s (%s)", each["task"], wanted, each["ran_on"], each["hostname"])
            if wanted not in configured_executors():
                fallbacks[each["task"]] = {"wanted": wanted, "given": each["ran_on"]}
                log.warning("%s is not configured here: its half is not applicable.", wanted)
        values = [each["value"] for each in (*quick, heavy, isolated)]
        log.info("Results: %s, the same whichever executors ran the tasks.", values)
        return {"places": places, "fallbacks": fallbacks, "values": values}

    planned = plan()
    quicks = [quick.override(task_id=f"quick_{number}")(number, planned) for number in (1, 2, 3)]
    collect(planned, quicks, heavy(planned), isolated(planned))


task_executor_selection()
