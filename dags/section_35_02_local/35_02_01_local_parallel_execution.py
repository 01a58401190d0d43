"""# 35.2.1 Parallel tasks on LocalExecutor

Four tasks that do not depend on each other. LocalExecutor keeps `[core] parallelism` worker processes
beside the scheduler; each takes one task, so the four run at the same time, every one in a process of its
own.

**What to look for**: in the log of `compare`, bars that lie above each other; in the Gantt view, the same.

SequentialExecutor, which ran one task at a time, no longer exists in Airflow 3 (its name now means
LocalExecutor). To see what it did, give LocalExecutor one process and run this again: the bars become stairs.

    ./lab up local --set core.parallelism=1
"""

import logging
import os
import time

from airflow.sdk import Param, dag, task

log = logging.getLogger("airflow.task")


@dag(
    dag_id="35_02_01_local_parallel_execution",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    params={
        "seconds": Param(6, type="number", minimum=0, maximum=60, description="how long each task works"),
    },
    doc_md=__doc__,
)
def local_parallel_execution():
    @task
    def work(params=None):
        """One of four equal tasks: it depends on none of the others."""
        started, begin = time.time(), time.monotonic()
        log.info("Started: pid %s, a child of LocalExecutor's worker process %s.", os.getpid(), os.getppid())
        time.sleep(params["seconds"])
        log.info("Done after %.1f s; the others ran meanwhile.", time.monotonic() - begin)
        span = {"started": started, "ended": time.time(), "seconds": time.monotonic() - begin}
        return {"pid": os.getpid(), "worker_pid": os.getppid(), **span}

    @task
    def compare(spans):
        """Draws when each task ran, and compares with one task at a time."""
        first, last = min(span["started"] for span in spans), max(span["ended"] for span in spans)
        for number, span in enumerate(spans, 1):
            before, during = span["started"] - first, span["ended"] - span["started"]
            bar = " " * round(4 * before) + "█" * round(4 * during)
            log.info("work_%s  pid %-7s %s", number, span["pid"], bar)
        together, sequential = last - first, sum(span["seconds"] for span in spans)
        overlap = min(span["ended"] for span in spans) - max(span["started"] for span in spans)
        log.info("All four at the same time: %s (for %.1f s)", overlap > 0, max(overlap, 0))
        log.info("Together %.1f s; one at a time, as SequentialExecutor: %.1f s.", together, sequential)
        pids = len({span["pid"] for span in spans})
        return {"pids": pids, "overlap": overlap, "together": together, "sequential": sequential}

    compare([work.override(task_id=f"work_{number}")() for number in range(1, 5)])


local_parallel_execution()
