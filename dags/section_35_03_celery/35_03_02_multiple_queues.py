"""# 35.3.2 A workflow over several queues

Steps of one workflow need different things, so each kind of step has its queue, and each queue a worker
that is made for it:

    extract ──▶ transform ──▶ load       one such pipeline for each source, side by side
    io_bound    compute       io_bound

| queue | its tasks | its worker | because |
| --- | --- | --- | --- |
| `io_bound` | wait for other systems | many slots (here 2) | a task that waits needs no CPU |
| `compute` | use a whole CPU | one slot per CPU (here 1) | two at once would only slow each other |

While one source is transformed, the next is extracted: no slot of `compute` is spent on waiting, and no
slow transformation keeps an extraction from starting.

**What to look for**: the bars in the log of `report`: those of `compute` never overlap, those of `io_bound`
do. Then the table below them: what each worker did.
"""

import logging
import time

from airflow.sdk import Param, dag, task, task_group

log = logging.getLogger("airflow.task")


def worker():
    """The name of the Celery worker that runs this task; None where another executor does."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app.current_task and app.current_task.request.hostname


def span(step, ti, started):
    """Which step ran from when to when, where it was sent and who took it."""
    return {"step": step, "queue": ti.queue, "worker": worker(), "started": started, "ended": time.time()}


def most_at_once(spans):
    """The largest number of tasks that were running when one of them started."""
    return max(sum(other["started"] <= span["started"] < other["ended"] for other in spans) for span in spans)


@dag(
    dag_id="35_03_02_multiple_queues",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "sources": Param(4, type="integer", minimum=1, maximum=16, description="how many pipelines"),
        "wait": Param(2, type="number", minimum=0, maximum=60, description="seconds a source takes to answer"),
        "cpu_seconds": Param(1, type="number", minimum=0.1, maximum=30, description="CPU time per transformation"),
    },
    doc_md=__doc__,
)
def multiple_queues():
    @task
    def sources(params=None):
        """The sources: one pipeline each."""
        return [f"source_{number}" for number in range(1, params["sources"] + 1)]

    @task(queue="io_bound")
    def extract(source, params=None, ti=None):
        """Waits for a source to answer: takes a slot, but no CPU."""
        started = time.time()
        log.info("%s waits for %s.", worker(), source)
        time.sleep(params["wait"])
        return {"source": source, "rows": 1000, "spans": [span("extract", ti, started)]}

    @task(queue="compute")
    def transform(extracted, params=None, ti=None):
        """Computes: takes a slot and a whole CPU."""
        started, cpu = time.time(), time.process_time()
        log.info("%s transforms %s rows of %s.", worker(), extracted["rows"], extracted["source"])
        while time.process_time() - cpu < params["cpu_seconds"]:
            total = sum(range(extracted["rows"]))
        return {**extracted, "total": total, "spans": [*extracted["spans"], span("transform", ti, started)]}

    @task(queue="io_bound")
    def load(transformed, params=None, ti=None):
        """Waits for the target to take the result."""
        started = time.time()
        log.info("%s loads the total of %s: %s", worker(), transformed["source"], transformed["total"])
        time.sleep(params["wait"] / 2)
        return {**transformed, "spans": [*transformed["spans"], span("load", ti, started)]}

    @task_group
    def pipeline(source):
        """One source, through all three steps."""
        load(transform(extract(source)))

    @task
    def report(ti=None):
        """When each step ran, how far the pipelines overlapped, and what each worker did."""
        loaded = ti.xcom_pull(task_ids=["pipeline.load"])
        spans = [{"source": each["source"], **span} for each in loaded for span in each["spans"]]
        first, last = min(span["started"] for span in spans), max(span["ended"] for span in spans)
        for each in sorted(spans, key=lambda span: span["started"]):
            before, during = each["started"] - first, each["ended"] - each["started"]
            bar = " " * round(2 * before) + "█" * max(1, round(2 * during))
            log.info("%-9s %-9s %-10s %s", each["source"], each["step"], each["queue"], bar)

        workers = {}
        for name in sorted({each["worker"] or "none" for each in spans}):
            own = [each for each in spans if (each["worker"] or "none") == name]
            workers[name] = {
                "steps": sorted({each["step"] for each in own}),
                "queues": sorted({each["queue"] for each in own}),
                "tasks": len(own),
                "most_at_once": most_at_once(own),
                "busy": sum(each["ended"] - each["started"] for each in own),
            }
            log.info("%s: %s", name, workers[name])
        one_by_one = sum(each["busy"] for each in workers.values())
        log.info("%.1f s of work took %.1f s: the pipelines overlapped.", one_by_one, last - first)
        return {"workers": workers, "together": last - first, "one_by_one": one_by_one}

    pipeline.expand(source=sources()) >> report()


multiple_queues()
