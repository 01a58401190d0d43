"""# 35.3.3 How many tasks a worker takes

| setting | meaning | here |
| --- | --- | --- |
| `--concurrency`, `[celery] worker_concurrency` | processes of one worker: tasks that it runs at once | 2 |
| `[celery] worker_prefetch_multiplier` | messages that a worker holds, per process | 1; `heavy-1` 4 |
| `[celery] task_acks_late` | a message is held until its task has *ended*, not only until it started | True |

With 1 and True a worker holds what it runs and nothing else; the rest waits in the broker, where any free
worker of the queue can take it. A multiplier of 4 lets a worker hold four messages for its one process: when
the first task is slow, or the whole worker, three others wait behind it although another worker is idle.
What it buys: a process that became free need not ask the broker, which takes up to a second, much for short
tasks.

Tasks are not dealt out: a process that is free takes the next one. So a slow task costs the others one
process, for as long as it runs. Against that: a queue of its own (35.3.1), `execution_timeout` (the task
`endless`), more processes.

**Pool size**: tasks that wait allow more processes than CPUs, tasks that compute do not, and every process
takes memory. A larger pool helps until the slowest task alone takes as long as all the others.

**What to look for**: the samples in the log of `watch`: as many active as there are processes, none
reserved, the rest waiting in the broker. Then, in `report`, which process took which tasks, and how long
pools of other sizes would take.
"""

import logging
import os
import time
from datetime import timedelta

import psutil
from airflow.sdk import Param, conf, dag, task
from airflow.sdk.exceptions import AirflowTaskTimeout

log = logging.getLogger("airflow.task")

QUEUE = "default"
SETTINGS = ["worker_concurrency", "worker_prefetch_multiplier", "task_acks_late", "worker_autoscale"]


def celery_app():
    """The Celery app of the worker that runs this task; None where another executor runs it."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app if app.current_task else None


def count(replies):
    """Worker → how many messages of the queue it named in its reply."""
    found = {
        worker: sum(message["delivery_info"]["routing_key"] == QUEUE for message in messages)
        for worker, messages in (replies or {}).items()
    }
    return {worker: number for worker, number in found.items() if number}


def makespan(seconds, processes):
    """How long a pool takes for these tasks when each free process takes the next one."""
    busy_until = [0] * processes
    for each in seconds:
        busy_until[busy_until.index(min(busy_until))] += each
    return max(busy_until)


@dag(
    dag_id="35_03_03_worker_concurrency",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "tasks": Param(6, type="integer", minimum=2, maximum=64, description="how many; the first is slow"),
        "seconds": Param(1, type="number", minimum=0, maximum=60, description="how long a task works"),
        "slow_seconds": Param(6, type="number", minimum=0, maximum=120, description="how long the slow one works"),
    },
    doc_md=__doc__,
)
def worker_concurrency():
    @task(queue="io_bound")
    def settings():
        """What this worker is configured to do, and what every worker says that it does."""
        for key in SETTINGS:
            log.info("[celery] %s = %s", key, conf.get("celery", key, fallback=None))
        app = celery_app()
        stats = app.control.inspect().stats() if app else None
        workers = {
            worker: {"processes": each["pool"]["max-concurrency"], "may_hold": each["prefetch_count"]}
            for worker, each in (stats or {}).items()
        }
        for worker, limits in sorted(workers.items()):
            log.info("%s runs %s tasks at once and holds up to %s messages.", worker, *limits.values())
        return workers

    @task(queue="io_bound")
    def plan(params=None):
        """One item per task, the slow one first; all become ready at the same time."""
        seconds = [params["slow_seconds"], *[params["seconds"]] * (params["tasks"] - 1)]
        ready = time.time()
        return [{"number": number, "seconds": each, "ready": ready} for number, each in enumerate(seconds, 1)]

    @task(queue=QUEUE)
    def work(number, seconds, ready):
        """Holds one process of a worker, for a short time or a long one."""
        started, app, process = time.time(), celery_app(), psutil.Process().parent()
        worker = app and app.current_task.request.hostname
        log.info("Task %s waited %.1f s; process %s of %s took it.", number, started - ready, process.pid, worker)
        time.sleep(seconds)
        held = [each.memory_info() for each in (process, psutil.Process())]
        memory = sum(each.rss - each.shared for each in held) // 2**20
        where = {"worker": worker, "process": process.pid, "pid": os.getpid(), "memory_mb": memory}
        return {"number": number, "seconds": seconds, "started": started, "ended": time.time(), **where}

    @task(queue="io_bound")
    def watch(params=None):
        """Samples the workers and the broker until the queue is empty and nothing of it runs."""
        app, samples = celery_app(), []
        if app is None:
            log.warning("No Celery worker runs this task, so there is none to watch: run it in the lab celery.")
            return None
        deadline = time.monotonic() + 10 + params["tasks"] * params["seconds"] + params["slow_seconds"]
        while time.monotonic() < deadline:
            inspect = app.control.inspect(timeout=0.5)
            sample = {"active": count(inspect.active()), "reserved": count(inspect.reserved())}
            with app.connection_for_read() as connection:
                sample["waiting"] = connection.default_channel.client.llen(QUEUE)
            log.info("active: %(active)s, reserved: %(reserved)s, waiting in the broker: %(waiting)s", sample)
            if samples and not any(sample.values()):
                break
            if any(sample.values()):
                samples.append(sample)
        return {
            "samples": len(samples),
            "most_active": max((sum(sample["active"].values()) for sample in samples), default=0),
            "most_reserved": max((sum(sample["reserved"].values()) for sample in samples), default=0),
            "most_waiting": max((sample["waiting"] for sample in samples), default=0),
        }

    @task(queue="io_bound", execution_timeout=timedelta(seconds=2))
    def endless():
        """Would hold its process for an hour; its `execution_timeout` ends it after two seconds."""
        started = time.monotonic()
        try:
            time.sleep(3600)
        except AirflowTaskTimeout:  # without this, the task would fail, or be retried
            log.info("Cut off after %.1f s: the process is free for another task.", time.monotonic() - started)
        return time.monotonic() - started

    @task(queue="io_bound")
    def report(workers, spans, watched, cut_off_after):
        """Which process took which tasks, and what a pool of another size would change."""
        spans, taken = sorted(spans, key=lambda span: span["started"]), {}
        for span in spans:
            taken.setdefault(f"{span['worker']}, process {span['process']}", []).append(span["number"])
        for process, numbers in taken.items():
            log.info("%s took %s", process, numbers)
        took = max(span["ended"] for span in spans) - spans[0]["started"]
        log.info("All %s tasks took %.1f s.", len(spans), took)

        seconds = [span["seconds"] for span in sorted(spans, key=lambda span: span["number"])]
        sizes = {size: makespan(seconds, size) for size in (1, 2, 4, len(seconds))}
        for size, expected in sizes.items():
            log.info("A pool of %s needs at least %.1f s for them.", size, expected)
        memory = max(span["memory_mb"] for span in spans)
        log.info("A process took %s MB with its task; this machine has %s CPUs.", memory, os.cpu_count())
        return {
            "workers": workers,
            "taken": taken,
            "took": took,
            "pool_sizes": sizes,
            "watched": watched,
            "cut_off_after": cut_off_after,
            "memory_mb": memory,
        }

    limits, items = settings(), plan()
    spans, watched, cut_off_after = work.expand_kwargs(items), watch(), endless()
    limits >> items >> [watched, cut_off_after]
    report(limits, spans, watched, cut_off_after)


worker_concurrency()
