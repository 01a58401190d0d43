"""# 35.7.4 An executor for a whole DAG

A DAG has no parameter `executor`; its tasks get one from `default_args`. As with every argument, the
nearest one wins:

    [core] executor, first entry  ◀  default_args of the DAG  ◀  default_args of a task group  ◀  the task

| task | executor here | why |
| --- | --- | --- |
| `inherits` | CeleryExecutor | `default_args` of the DAG |
| `site.inherits` | EdgeExecutor | `default_args` of its group |
| `overrides` | LocalExecutor, else KubernetesExecutor | its own argument |
| `site.overrides` | the same | its own argument, against both |
| `opts_out` | the first entry of the list | its own argument, `executor=None` |

The file must parse where one of these is not configured, so each name falls back to None, the first entry.

**Migrating** from one executor to two:

* Add the new one *behind* the old one, for every component. The first entry stays the default: nothing
  moves, and no DAG is touched.
* Move what should move: a DAG by its `default_args`, a task by its argument.
* To move all the rest, let running tasks end and change the order of the list. Tasks that name their
  executor stay where they are.

Or move by alias: a DAG that says `executor="batch"` moves when the list gives that alias to another
executor.

**What to look for**: the log of `report`, and *Executor* in the details of the task instances: empty where
a task follows the list.
"""

import logging
import os

import psutil
from airflow.sdk import conf, dag, task, task_group

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


LOCAL, PODS, CELERY, EDGE = map(
    configured_executors().get, ["LocalExecutor", "KubernetesExecutor", "CeleryExecutor", "EdgeExecutor"]
)
OTHER = LOCAL or PODS
"""What to write as `executor=`; None, which is the default executor, for one that is not configured."""


@dag(
    dag_id="35_07_04_dag_executor_default",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    default_args={"executor": CELERY},
    doc_md=__doc__,
)
def dag_executor_default():
    @task
    def where(ti=None):
        """Does the same everywhere; says which executor it got, and which one runs it."""
        found = {"task": ti.task_id, "executor": ti.task.executor, "ran_on": running_executor()}
        log.info("%(task)s has executor=%(executor)r and runs on %(ran_on)s", found)
        return {**found, "hostname": ti.hostname, "value": sum(range(1_000))}

    @task_group(default_args={"executor": EDGE})
    def site():
        """A part of the DAG with a default of its own."""
        return [
            where.override(task_id="inherits")(),
            where.override(task_id="overrides", executor=OTHER)(),
        ]

    @task
    def report(found):
        """Who gave each task its executor, and what a change of the list would move."""
        configured = configured_executors()
        log.info("[core] executor = %s", conf.get("core", "executor"))
        wanted = {"LocalExecutor or KubernetesExecutor": OTHER, "CeleryExecutor": CELERY, "EdgeExecutor": EDGE}
        for name, executor in wanted.items():
            if executor is None:
                log.warning("%s is not configured here: tasks that want it follow the list.", name)
        for each in found:
            log.info("%(task)-15s executor=%(executor)r, ran on %(ran_on)s (%(hostname)s)", each)
        follows = sorted(each["task"] for each in found if each["executor"] is None)
        stays = sorted(each["task"] for each in found if each["executor"] is not None)
        log.info("With another first entry than %s these would move: %s", next(iter(configured)), follows)
        log.info("These would stay, wherever their executor stands in the list: %s", stays)
        return {
            "default": next(iter(configured)),
            "executors": {each["task"]: each["executor"] for each in found},
            "ran_on": {each["task"]: each["ran_on"] for each in found},
            "values": sorted({each["value"] for each in found}),
            "follows": follows,
            "stays": stays,
        }

    report(
        [
            where.override(task_id="inherits")(),
            where.override(task_id="overrides", executor=OTHER)(),
            where.override(task_id="opts_out", executor=None)(),
            *site(),
        ]
    )


dag_executor_default()
