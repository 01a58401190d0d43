"""# 35.2.2 What `[core] parallelism` does

`parallelism` is the number of tasks that one scheduler's executor runs at once. On LocalExecutor it is also
the number of worker processes. Here more tasks are ready than it allows: the rest waits.

| limit | counts | a task that must wait is |
| --- | --- | --- |
| `[core] parallelism` | all tasks of one scheduler's executor | `queued`: handed over, no process free yet |
| `max_active_tasks` of the DAG | tasks of one DAG *run* | `scheduled`: not handed over at all (35.2.3) |
| a pool's slots | tasks in the pool, all DAGs | `scheduled` |

LocalExecutor 3.3 takes more tasks than it has processes for: that is why they wait as `queued`. A process
may be free only some seconds after its task ended: it looks every `[workers] min_heartbeat_interval`.

**What to look for**: while it runs, `running` and `queued` squares in the grid; afterwards the waves in the
log of `observe`. Then double the limit, or halve it, and run this again:

    ./lab up local --set core.parallelism=8

**Resources**: each slot is a whole Python process, and an idle one takes memory too. Tasks that wait (for a
server, a query) allow more slots than CPUs; tasks that compute do not become faster with more slots than
CPUs (35.2.4).
"""

import logging
import os
import time

import psutil
from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")


@dag(
    dag_id="35_02_02_parallelism_config",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "tasks": Param(10, type="integer", minimum=2, maximum=100, description="more than parallelism"),
        "seconds": Param(3, type="number", minimum=0, maximum=60, description="how long each task works"),
    },
    doc_md=__doc__,
)
def parallelism_config():
    @task
    def plan(params=None, dag=None):
        """The limits in force, and one number per task to map over."""
        parallelism = conf.getint("core", "parallelism")
        log.info("[core] parallelism        = %s, for all DAGs together", parallelism)
        log.info("max_active_tasks          = %s, for one run of this DAG", dag.max_active_tasks)
        if params["tasks"] <= parallelism:
            log.warning("With only %s tasks, none has to wait: raise the parameter.", params["tasks"])
        ready = time.time()
        return [{"number": number, "ready": ready} for number in range(1, params["tasks"] + 1)]

    @task
    def work(number, ready, params=None):
        """Takes one slot; logs how long it had to wait for it."""
        started, begin = time.time(), time.monotonic()
        log.info("Task %s was ready, then waited %.1f s for a slot.", number, started - ready)
        time.sleep(params["seconds"])
        memory = psutil.Process().memory_info().rss // 2**20
        span = {"started": started, "ended": time.time(), "seconds": time.monotonic() - begin}
        return {"number": number, "pid": os.getpid(), "waited": started - ready, "memory_mb": memory, **span}

    @task
    def observe(spans):
        """The waves, the largest number at once, and what a slot costs."""
        parallelism = conf.getint("core", "parallelism")
        spans = sorted(spans, key=lambda span: span["started"])
        for span in spans:
            span["at_once"] = sum(other["started"] <= span["started"] < other["ended"] for other in spans)
            log.info("task %(number)2s waited %(waited)4.1f s; running when it started: %(at_once)s", span)
        most = max(span["at_once"] for span in spans)
        log.info("%s tasks, at most %s at once: [core] parallelism is %s.", len(spans), most, parallelism)

        memory, free = max(span["memory_mb"] for span in spans), psutil.virtual_memory().available // 2**20
        log.info("A slot took up to %s MB: %s slots take %s MB.", memory, parallelism, memory * parallelism)
        log.info("This machine has %s CPUs, and %s MB of memory are free.", os.cpu_count(), free)
        waited = max(span["waited"] for span in spans)
        return {"tasks": len(spans), "parallelism": parallelism, "most_at_once": most, "longest_wait": waited}

    observe(work.expand_kwargs(plan()))


parallelism_config()
