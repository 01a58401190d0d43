"""# 35.1.4 How many tasks run at once?

| executor | a slot is | how many |
| --- | --- | --- |
| SequentialExecutor (removed in Airflow 3) | – | 1; today LocalExecutor with `[core] parallelism = 1` |
| LocalExecutor | a process beside the scheduler | `[core] parallelism` per scheduler |
| CeleryExecutor | a process of a Celery worker | workers × `[celery] worker_concurrency` |
| KubernetesExecutor | a pod | the namespace's quota, and what the nodes can hold |
| EdgeExecutor | a process of an edge worker | the sum of the workers' `--concurrency` |

`[core] parallelism` is also the upper limit of every executor, per scheduler.

`plan` makes equal, independent tasks; `observe` counts how many really ran at the same moment, and how many
processes carried them: LocalExecutor and CeleryExecutor use a process again, the others start one per task.

**What to look for**: the last line of `observe`. Then change the limit and compare, for example

    ./lab up local --set core.parallelism=1

runs the same tasks one after the other, as SequentialExecutor did.
"""

import logging
import os
import socket
import time

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")


def most_at_once(spans):
    """The largest number of tasks that were running when one of them started."""
    return max(sum(other["started"] <= span["started"] < other["ended"] for other in spans) for span in spans)


@dag(
    dag_id="35_01_04_executor_parallelism",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "tasks": Param(6, type="integer", minimum=2, maximum=64, description="how many independent tasks"),
        "seconds": Param(4, type="number", minimum=0, maximum=60, description="how long each one works"),
    },
    doc_md=__doc__,
)
def executor_parallelism():
    @task
    def limits():
        """The limits that this worker's configuration knows, executor by executor."""
        found = {
            "executor": conf.get("core", "executor"),
            "parallelism": conf.getint("core", "parallelism"),
            "worker_concurrency": conf.getint("celery", "worker_concurrency", fallback=None),
        }
        log.info("Configured: %s", found["executor"])
        log.info("SequentialExecutor: gone; its one task at a time is [core] parallelism = 1")
        log.info("LocalExecutor:      %s processes per scheduler", found["parallelism"])
        log.info("CeleryExecutor:     %s processes per worker", found["worker_concurrency"])
        log.info("KubernetesExecutor: %s pods, or fewer by quota and nodes", found["parallelism"])
        log.info("EdgeExecutor:       what its workers were started with, `airflow edge worker -c`")
        return found

    @task
    def plan(limits, params=None):
        """One number per task; the next task is mapped over them."""
        log.info("%s tasks become ready; [core] parallelism is %s.", params["tasks"], limits["parallelism"])
        return list(range(1, params["tasks"] + 1))

    @task
    def work(number, params=None):
        """Takes a slot for a while, and says when and where."""
        started = time.time()
        log.info("Task %s holds a slot: pid %s, started by %s.", number, os.getpid(), os.getppid())
        time.sleep(params["seconds"])
        slot = {"hostname": socket.gethostname(), "worker_pid": os.getppid()}
        return {"number": number, "pid": os.getpid(), **slot, "started": started, "ended": time.time()}

    @task
    def observe(limits, spans):
        """How many of them ran at once, and by how many worker processes."""
        spans = sorted(spans, key=lambda span: span["started"])
        first = spans[0]["started"]
        for span in spans:
            began, ended = span["started"] - first, span["ended"] - first
            where = f"host {span['hostname']}, worker process {span['worker_pid']}"
            log.info("task %2s ran from %4.1f s to %4.1f s on %s", span["number"], began, ended, where)
        workers = {(span["hostname"], span["worker_pid"]) for span in spans}
        result = {"tasks": len(spans), "most_at_once": most_at_once(spans), "workers": len(workers)}
        log.info("%(tasks)s tasks, at most %(most_at_once)s at once, by %(workers)s worker processes", result)
        return {**result, "parallelism": limits["parallelism"]}

    known = limits()
    observe(known, work.expand(number=plan(known)))


executor_parallelism()
