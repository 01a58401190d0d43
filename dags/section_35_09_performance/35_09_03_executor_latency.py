"""# 35.9.3 How soon a task starts, and what makes it sooner

From the end of one task to the first line of the next, a chain waits for one thing after the other:

| stage | from, to | what it is |
| --- | --- | --- |
| `handed over` | the end of the task before, a place for this one | scheduler, executor; for a pod its node and image |
| `made ready` | the place, the task's process | in a pod Python starts, and imports Airflow; nothing on a worker |
| `reported` | the process, *running* | the task asks the API server whether it may run |
| `DAG file` | *running*, the first line | the file is parsed, what the task is given is fetched |

A *place* is the process above that of the task: of LocalExecutor and CeleryExecutor one that waited for work, at a
site one that its worker forks, in a pod that with which its container began.

One task after the other runs here on each executor of `[core] executor`, in several rounds, and says when each stage
was over. When its process and the one above began, it knows from the kernel. What several machines say compares only
as well as their clocks agree.

**From the scheduler to the executor**: a scheduler without work sleeps for `[scheduler] scheduler_idle_sleep_time`
(1 s; in these labs 0.25 s), and a task that ends meanwhile waits. A site asks for jobs every `[edge]
job_poll_interval` seconds. Long chains of short tasks pay all this at each link: make them fewer.

**Pods**: what a pod imports, it imports for each task. `made ready` grows with plugins and `airflow_local_settings`,
`DAG file` with the imports at the top of the file. Import what is heavy within the task that needs it.

**Warm workers**: a worker of the CeleryExecutor imports Airflow once, then forks; so does the LocalExecutor. A worker
that must be started first, as after scaling to zero, has all that before it. Keep one up (`minReplicaCount` of a
ScaledObject), and let Celery's `worker_max_tasks_per_child` replace processes no more often than memory makes you.

**Images**: a node that lacks the image fetches it before the container starts. Pin a tag (for `latest` each start asks
the registry), set `imagePullPolicy: IfNotPresent`, keep the image small, and fetch it ahead of time, with a DaemonSet
or in the node's own image. What pods met with is told by

    kubectl get events --field-selector reason=Pulled

**What to look for**: the table in the log of `report`, with the longest stage of each executor and what shortens it;
the logs of the tasks before it, round by round.
"""

import logging
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path

import psutil
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

ROUNDS = 3

STAGES = {
    "handed over": "an awake scheduler, executors that need not poll; for pods free nodes that have the image",
    "made ready": "a worker that is up already; in a pod, fewer imports in settings and plugins",
    "reported": "an API server that is near, and has time",
    "DAG file": "fewer imports at the top of the file, small XComs",
}
"""Stage, in order → what shortens it."""

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


def began(pid):
    """When a process began, in epoch seconds; the kernel counts it in ticks since the machine was started."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def in_words(stages):
    """Stages with their seconds, in a row."""
    return " ▶ ".join(f"{stage} {seconds:.2f} s" for stage, seconds in stages.items())


@dag(
    dag_id="35_09_03_executor_latency",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "performance", "intermediate", "success"],
    doc_md=__doc__,
)
def executor_latency():
    @task
    def begin():
        """Ends at once: from then on the next task waits."""
        return {"first": time.time(), "ended": time.time()}

    @task
    def measure(before, ti=None):
        """Does nothing; says when each stage on the way to its first line was over."""
        first = time.time()
        above, process = began(os.getppid()), began(os.getpid())
        warm = above < before["ended"]
        ends = [before["ended"], process if warm else above, process, ti.start_date.timestamp(), first]
        stages = {stage: end - start for stage, (start, end) in zip(STAGES, pairwise(ends), strict=True)}
        executor = running_executor()
        log.info("%s started this after %.2f s: %s", executor, first - before["ended"], in_words(stages))
        log.info("The process above it is %s.", "an old one, which waited for work" if warm else "made for this task")
        where = {"executor": executor, "hostname": ti.hostname, "pid": os.getpid()}
        times = {"asked": before["ended"], "above": above, "process": process, "first": first}
        return {**where, **times, "warm": warm, "stages": stages, "ended": time.time()}

    @task
    def report(found):
        """The executors side by side: the median of each stage, the longest one, and what shortens it."""
        medians, longest = {}, {}
        for executor in configured_executors():
            own = [each["stages"] for each in found if each["executor"] == executor]
            medians[executor] = {stage: statistics.median(each[stage] for each in own) for stage in STAGES}
            longest[executor] = max(STAGES, key=medians[executor].get)
        for executor, stages in sorted(medians.items(), key=lambda item: sum(item[1].values())):
            log.info("%-18s %.2f s: %s", executor, sum(stages.values()), in_words(stages))
            log.info("    longest: %s. It takes %s.", longest[executor], STAGES[longest[executor]])
        return {"medians": medians, "longest": longest}

    steps = [begin()]
    for number in range(1, ROUNDS + 1):
        for executor, name in configured_executors().items():
            steps.append(measure.override(task_id=f"{executor}_{number}", executor=name)(steps[-1]))
    report(steps[1:])


executor_latency()
