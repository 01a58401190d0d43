"""# 35.2.3 `max_active_tasks`: a limit for one DAG

Two names for one limit: `max_active_tasks=` on the DAG, and `[core] max_active_tasks_per_dag`, the default
for DAGs that do not set it. In spite of that name, **since Airflow 3 it counts per DAG run** (in Airflow 2
it counted all runs of the DAG together): two runs of this DAG may run twice as many tasks. To limit the DAG
as a whole, limit its runs too (`max_active_runs`), or use a pool.

Six tasks are ready here and `max_active_tasks=2`, so they run two by two, although LocalExecutor has
processes to spare:

    tasks of this run at once  ≤  the smallest of  max_active_tasks · [core] parallelism · free pool slots

**What to look for**: in the grid, waiting tasks are `scheduled`, not `queued`: the scheduler keeps them
back, the executor never sees them (compare 35.2.2). Then edit the number below, or start two runs at once.
"""

import logging
import os
import time

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")


@dag(
    dag_id="35_02_03_max_active_tasks_per_dag",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=2,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "tasks": Param(6, type="integer", minimum=3, maximum=64, description="more than max_active_tasks"),
        "seconds": Param(3, type="number", minimum=0, maximum=60, description="how long each task works"),
    },
    doc_md=__doc__,
)
def max_active_tasks_per_dag():
    @task
    def plan(params=None, dag=None):
        """The limits in force, and one number per task to map over."""
        default = conf.getint("core", "max_active_tasks_per_dag")
        log.info("max_active_tasks                = %s, for one run of this DAG", dag.max_active_tasks)
        log.info("[core] max_active_tasks_per_dag = %s, for a DAG that does not say; this one does", default)
        log.info("[core] parallelism              = %s, for all DAGs", conf.getint("core", "parallelism"))
        ready = time.time()
        return [{"number": number, "ready": ready} for number in range(1, params["tasks"] + 1)]

    @task
    def work(number, ready, params=None):
        """Takes one of the DAG run's two places; logs how long it was held back."""
        started, begin = time.time(), time.monotonic()
        log.info("Task %s was ready, then held back for %.1f s.", number, started - ready)
        time.sleep(params["seconds"])
        span = {"started": started, "ended": time.time(), "seconds": time.monotonic() - begin}
        return {"number": number, "pid": os.getpid(), "waited": started - ready, **span}

    @task
    def observe(spans, dag=None):
        """Counts the tasks at once, and names the limit that decided."""
        spans = sorted(spans, key=lambda span: span["started"])
        for span in spans:
            span["at_once"] = sum(other["started"] <= span["started"] < other["ended"] for other in spans)
            log.info("task %(number)2s waited %(waited)4.1f s; running when it started: %(at_once)s", span)
        limits = {"max_active_tasks": dag.max_active_tasks, "parallelism": conf.getint("core", "parallelism")}
        most, decided = max(span["at_once"] for span in spans), min(limits, key=limits.get)
        log.info("At most %s at once. Limits: %s. The smaller one decides: %s.", most, limits, decided)
        return {"tasks": len(spans), "most_at_once": most, **limits, "decided": decided}

    observe(work.expand_kwargs(plan()))


max_active_tasks_per_dag()
