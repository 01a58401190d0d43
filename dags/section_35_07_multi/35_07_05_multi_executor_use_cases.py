"""# 35.7.5 Where several executors pay

| pattern | tasks | executors |
| --- | --- | --- |
| fast and heavy | `fast_…` short and many, `heavy` long and large | CeleryExecutor, KubernetesExecutor |
| development and production | `in_development`, `in_production`: the same code | LocalExecutor, CeleryExecutor |
| sites and centre | `sensor_…` reads where the devices are, `process` computes | EdgeExecutor, KubernetesExecutor |
| cost | `costs` compares what the tasks of this run would cost | all |

Without Kubernetes, `heavy` and `process` go to CeleryExecutor: the Kubernetes half is not applicable here,
and `costs` says so. An executor that is missing otherwise is replaced by the default one.

**Development and production** differ in the list, not in the DAG. Give what tasks need a name, an alias:

    [core] executor = workers:LocalExecutor       on a laptop
    [core] executor = workers:CeleryExecutor      in production

and let the DAG say `executor="workers"`, or nothing: then the first entry decides.

**Cost**: two prices compete. A worker is paid by the hour, idle or not, and starts a task at once; a pod is
paid while it runs, and its start is paid too. Few or large tasks are cheaper as pods, many short ones on
workers. Where the line is, `costs` computes from the times of this run and the prices of its parameters.

**What to look for**: the log of `costs`; in the details of the task instances, *Executor*.
"""

import logging
import os
import time

import psutil
from airflow.sdk import Param, conf, dag, task, task_group

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


def first(*wanted):
    """The first of these executors that is configured; None, the default executor, if none of them is."""
    configured = configured_executors()
    return next((configured[executor] for executor in wanted if executor in configured), None)


LOCAL, CELERY, EDGE = first("LocalExecutor"), first("CeleryExecutor"), first("EdgeExecutor")
LARGE = first("KubernetesExecutor", "CeleryExecutor")
PATTERNS = ["LocalExecutor", "CeleryExecutor", "EdgeExecutor", "KubernetesExecutor"]
"""The executors that the patterns use."""


def done(ti, begin, value):
    """What a task leaves behind: its value, where it ran and how long it took."""
    ran_on, seconds = running_executor(), time.monotonic() - begin
    log.info("%s: executor=%r, ran on %s (%s), %.2f s", ti.task_id, ti.task.executor, ran_on, ti.hostname, seconds)
    where = {"executor": ti.task.executor, "ran_on": ran_on, "hostname": ti.hostname}
    return {"task": ti.task_id, "value": value, "seconds": seconds, **where}


@dag(
    dag_id="35_07_05_multi_executor_use_cases",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    params={
        "worker_price": Param(1, type="number", minimum=0, description="of a worker, per hour, idle or not"),
        "pod_price": Param(2, type="number", minimum=0, description="of a pod, per hour that it runs"),
        "pod_start": Param(5, type="number", minimum=0, description="seconds until a pod runs its task"),
        "tasks_per_hour": Param(60, type="integer", minimum=1, description="how often each task runs"),
    },
    doc_md=__doc__,
)
def multi_executor_use_cases():
    @task_group
    def fast_and_heavy():
        """Many short tasks on workers that wait for them; one large task in a place of its own."""

        @task(executor=CELERY)
        def fast(number, ti=None):
            """Over in no time: its start is what counts."""
            return done(ti, time.monotonic(), number**2)

        @task(executor=LARGE)
        def heavy(ti=None):
            """Computes for a while: its start does not count."""
            begin = time.monotonic()
            return done(ti, begin, sum(number % 7 for number in range(10_000_000)))

        return [*(fast.override(task_id=f"fast_{number}")(number) for number in (1, 2, 3)), heavy()]

    @task_group
    def development_and_production():
        """The same function on both: what is tested on one machine runs on workers."""

        @task
        def total(ti=None):
            """Knows nothing of the executor."""
            return done(ti, time.monotonic(), round(sum([301.27, 433.21, 502.22]), 2))

        return [
            total.override(task_id="in_development", executor=LOCAL)(),
            total.override(task_id="in_production", executor=CELERY)(),
        ]

    @task_group
    def sites_and_centre():
        """Readings are taken where the devices are; only small results travel to the centre."""

        @task(executor=EDGE)
        def sensor(number, ti=None):
            """Reduces its readings on the spot: the way to the centre is narrow."""
            readings = [20 + number + step % 10 / 10 for step in range(1_000)]
            return done(ti, time.monotonic(), round(sum(readings) / len(readings), 2))

        @task(executor=LARGE)
        def process(sensors, ti=None):
            """Works on what all sites sent."""
            return done(ti, time.monotonic(), max(each["value"] for each in sensors))

        sensors = [sensor.override(task_id=f"sensor_{number}")(number) for number in (1, 2)]
        return [*sensors, process(sensors)]

    @task
    def costs(found, params=None):
        """What each task costs per hour as a pod; what a worker costs; how often a task must run to pay for one."""
        missing = [executor for executor in PATTERNS if executor not in configured_executors()]
        for executor in missing:
            log.warning("%s is not configured here: its half of a pattern is not applicable.", executor)
        table = {}
        for each in found:
            a_pod = params["pod_price"] * (each["seconds"] + params["pod_start"]) / 3600
            pods, line = a_pod * params["tasks_per_hour"], params["worker_price"] / a_pod
            cheaper = "pods" if pods < params["worker_price"] else "a worker"
            table[each["task"]] = {"pods": pods, "worker": params["worker_price"], "cheaper": cheaper}
            values = (each["task"], pods, params["worker_price"], cheaper, line)
            log.info("%-45s pods %.2f, a worker %s per hour: %s, line at %.0f runs per hour", *values)
        together = sum(each["pods"] for each in table.values())
        log.info("All of them as pods: %.2f; on one shared worker: %s per hour.", together, params["worker_price"])
        return {
            "tasks": {each["task"]: {"executor": each["executor"], "ran_on": each["ran_on"]} for each in found},
            "values": {each["task"]: each["value"] for each in found},
            "costs": table,
            "missing": missing,
        }

    costs([*fast_and_heavy(), *development_and_production(), *sites_and_centre()])


multi_executor_use_cases()
