"""# 35.7.1 Why more than one executor

One Airflow may have several executors; each task goes to one of them. That is worth its trouble when tasks
differ more than one executor can serve:

| executor | good at | its price |
| --- | --- | --- |
| LocalExecutor | starts at once, needs nothing else | competes with the scheduler for one machine |
| CeleryExecutor | many short tasks on workers that are ready | a broker, and workers that run when idle |
| KubernetesExecutor | isolation, sizes per task, nothing runs when idle | each task waits for a pod |
| EdgeExecutor | places that only reach the API server | polls for work; results and logs by HTTP |

    [core]
    executor = LocalExecutor,celery:CeleryExecutor,edge:airflow.providers.edge3.executors.EdgeExecutor

The first one is the default. A task names another with `executor=`: by its class, its module path or its
alias. A name that is not in the list is an import error of the whole DAG file, on every component that
parses it: give all of them the same list.

Here one task runs on each executor of the list, whatever that is, and measures what the table says.

**What to look for**: the log of `trade_offs`; in the details of the task instances, *Executor*.
"""

import logging
import os
import time

import psutil
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

STARTED_BY = {
    "airflow scheduler": "LocalExecutor",
    "celeryd": "CeleryExecutor",
    "celery worker": "CeleryExecutor",
    "edge worker": "EdgeExecutor",
}


def configured_executors():
    """Class → what to write as `executor=`, in order, of `[core] executor`: `Class`, `path` or `alias:path`."""
    entries = [entry.strip() for entry in conf.get("core", "executor").split(",")]
    return {entry.split(":")[-1].split(".")[-1]: entry.split(":")[0] for entry in entries}


def running_executor():
    """The executor that started this process, by its ancestors, the nearest first."""
    if "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ:
        return "KubernetesExecutor"
    commands = [" ".join(ancestor.cmdline()) for ancestor in psutil.Process().parents()]
    return next((name for command in commands for mark, name in STARTED_BY.items() if mark in command), "unknown")


@dag(
    dag_id="35_07_01_multi_executor_concepts",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def multi_executor_concepts():
    @task
    def overview():
        """The configured executors, in order; the first one runs this task, as it names none."""
        names = configured_executors()
        log.info("[core] executor = %s", conf.get("core", "executor"))
        for place, (executor, name) in enumerate(names.items()):
            log.info("%s: executor=%r%s", executor, name, "" if place else ", the default")
        if len(names) == 1:
            log.warning("There is only one executor here, so nothing to choose from: run this in the lab multi.")
        return {"executors": names, "ended": time.time()}

    @task
    def measure(previous, ti=None):
        """Runs on the executor that it names; how soon it started, and in which surroundings."""
        waited = time.time() - previous["ended"]
        found = {
            "asked": ti.task.executor,
            "ran_on": running_executor(),
            "waited": waited,
            "hostname": ti.hostname,
            "user": os.getuid(),
            "home": os.environ.get("AIRFLOW_HOME"),
            "pid": os.getpid(),
        }
        log.info("executor=%(asked)r ran on %(ran_on)s, after %(waited).1f s", found)
        log.info("host %(hostname)s, user id %(user)s, AIRFLOW_HOME %(home)s, pid %(pid)s", found)
        return {**found, "ended": time.time()}

    @task
    def trade_offs(found):
        """What differed between the executors, measured."""
        for each in sorted(found, key=lambda each: each["waited"]):
            log.info("%(ran_on)-18s started after %(waited)4.1f s, user id %(user)s, home %(home)s", each)
        quickest = min(found, key=lambda each: each["waited"])["ran_on"]
        log.info("Quickest to start, this time: %s. Before you rely on it, start this DAG a few times.", quickest)
        surroundings = {(each["user"], each["home"]) for each in found}
        log.info("%s executors, %s different surroundings (user, home)", len(found), len(surroundings))
        return {
            "asked": {each["ran_on"]: each["asked"] for each in found},
            "waited": {each["ran_on"]: each["waited"] for each in found},
            "surroundings": len(surroundings),
        }

    steps = [overview()]
    for executor, name in configured_executors().items():
        steps.append(measure.override(task_id=f"on_{executor}", executor=name)(steps[-1]))
    trade_offs(steps[1:])


multi_executor_concepts()
