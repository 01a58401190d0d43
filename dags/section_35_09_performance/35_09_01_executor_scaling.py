"""# 35.9.1 As many workers as the work needs

| executor | grows by | what decides | falls back |
| --- | --- | --- | --- |
| LocalExecutor | `[core] parallelism`, a larger machine | you | never: its processes stay |
| CeleryExecutor | processes: `--autoscale MOST,LEAST` | messages that a worker holds | 30 s after it grew |
| CeleryExecutor, in a cluster | pods: HorizontalPodAutoscaler | CPU of the pods | after a calm time |
| CeleryExecutor, in a cluster | pods, from none on: KEDA | tasks queued and running | after a calm time |
| KubernetesExecutor | a pod for each task; the cluster adds nodes | each task asks for itself | with each task |
| EdgeExecutor | more workers at a site | you | you |

**A burst** is more work at once than there are processes. What cannot run waits in the broker, and the wait of the last
task is what people notice. More workers make it shorter, but not at once: somebody has to see the queue, a pod needs a
node and an image, Airflow's worker some ten seconds to start. A burst that is over by then is better met by workers
that are there already, or by patience.

**CPU is a poor sign of work that waits**: a task that waits for a database uses none, so an autoscaler of CPU sees
nothing of a full queue, and takes workers away while their tasks wait. The number of tasks says it: with `s` slots in
each worker, `ceil((queued + running) / s)` of them, between the bounds. That counts what runs, too, or a worker
would go as soon as it has taken the last message.

**Going down costs more than going up**: whichever pod goes may be running a task. It is asked to end (SIGTERM, Celery's
warm shutdown), takes nothing more, and has `terminationGracePeriodSeconds` to end what it runs: at least the longest
task, or that task is killed and runs again.

**Right size**: from the tasks that ran `report` works out how long pools of other sizes take, how long the last task
waits, and which share of what is paid for works. A process more that halves nothing is only paid for. The memory of a
process with its task, times the processes, is what a worker asks for.

**What to look for**: the curve in the log of `watch`; the table in the log of `report`. In a lab with an autoscaler
`kubectl get hpa --watch` beside it, and the run `{"tasks": 12, "seconds": 15, "computes": 0.5}`.
"""

import logging
import math
import os
import time
from itertools import pairwise

import psutil
from airflow.sdk import Param, dag, task

log = logging.getLogger("airflow.task")

QUEUE = "compute"
"""Where the burst goes; the other tasks of this DAG have a queue of their own, so that they do not wait behind it."""

SIZES = (1, 2, 4)
"""Pools that are worked out."""


def celery_app():
    """The Celery app of the worker that runs this task; None where another executor runs it."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app if app.current_task else None


def pool(seconds, processes):
    """When all that wait together have ended, and when the last begins, if each free process takes the next one."""
    busy_until, begins = [0] * processes, 0
    for each in seconds:
        begins = min(busy_until)
        busy_until[busy_until.index(begins)] += each
    return max(busy_until), begins


def wanted_workers(tasks, slots, least, most):
    """How many workers an autoscaler of tasks asks for."""
    return max(least, min(most, math.ceil(tasks / slots)))


def paid(curve):
    """Process-seconds below a curve: what there was at one look was there until the next."""
    return sum((after["at"] - before["at"]) * before["processes"] for before, after in pairwise(curve))


@dag(
    dag_id="35_09_01_executor_scaling",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "performance", "intermediate", "success"],
    params={
        "tasks": Param(8, type="integer", minimum=2, maximum=64, description="how many come at once"),
        "seconds": Param(2, type="number", minimum=0, maximum=120, description="how long each works"),
        "computes": Param(0, type="number", minimum=0, maximum=1, description="share of that time; else it waits"),
    },
    doc_md=__doc__,
)
def executor_scaling():
    @task(queue="io_bound")
    def burst(params=None):
        """One item for each task; all become ready at the same time."""
        ready = time.time()
        return [{"number": number, "ready": ready} for number in range(1, params["tasks"] + 1)]

    @task(queue=QUEUE)
    def work(number, ready, params=None, ti=None):
        """One of many; computes, or waits as if for another system."""
        started, cpu = time.time(), time.process_time()
        log.info("Task %s waited %.1f s, and runs on %s", number, started - ready, ti.hostname)
        while (now := time.time()) < started + params["seconds"]:
            while time.time() < now + 0.1 * params["computes"]:
                sum(range(10_000))
            time.sleep(0.1 * (1 - params["computes"]))
        held = [each.memory_info() for each in (psutil.Process().parent(), psutil.Process())]
        memory = sum(each.rss - each.shared for each in held) // 2**20
        used = {"cpu": time.process_time() - cpu, "memory_mb": memory}
        return {"number": number, "ready": ready, "started": started, "ended": time.time(), "at": ti.hostname, **used}

    @task(queue="io_bound")
    def watch(params=None):
        """The curve: tasks that wait in the broker, tasks that run, and processes that there are for them."""
        app, curve, began = celery_app(), [], time.time()
        if app is None:
            log.warning("No Celery worker runs this task, so there is no queue to watch: run it in the lab celery.")
            return None
        deadline = time.monotonic() + 30 + params["tasks"] * (params["seconds"] + 5)
        while time.monotonic() < deadline:
            inspect = app.control.inspect(timeout=1)
            served = inspect.active_queues() or {}
            workers = [name for name, queues in served.items() if QUEUE in {queue["name"] for queue in queues}]
            active, stats = inspect.active() or {}, inspect.stats() or {}
            if not served or set(workers) - set(stats):
                continue  # not all have answered in time
            with app.connection_for_read() as connection:
                waiting = connection.default_channel.client.llen(QUEUE)
            look = {
                "at": round(time.time() - began, 1),
                "waiting": waiting,
                "running": sum(len(active.get(name, ())) for name in workers),
                "processes": sum(len(stats[name]["pool"]["processes"]) for name in workers),
            }
            log.info("%(at)6.1f s: %(waiting)3s wait, %(running)3s run, %(processes)3s processes", look)
            curve.append(look)
            busy = [each["waiting"] + each["running"] > 0 for each in curve]
            if any(busy) and not any(busy[-2:]):  # between two tasks there may be nothing for a moment
                break
        return curve

    @task(queue="io_bound")
    def report(spans, curve):
        """How long the burst waited, what was paid for it, and what pools of other sizes would have made of it."""
        spans = sorted(spans, key=lambda span: span["started"])
        waits = [span["started"] - span["ready"] for span in spans]
        took = max(span["ended"] for span in spans) - spans[0]["ready"]
        used = sum(span["ended"] - span["started"] for span in spans)
        log.info(
            "%s tasks took %.1f s; the first waited %.1f s, the last %.1f s", len(spans), took, waits[0], waits[-1]
        )

        seconds = [span["ended"] - span["started"] for span in sorted(spans, key=lambda span: span["number"])]
        sizes = {}
        for size in SIZES:
            ended, last = pool(seconds, size)
            sizes[size] = {"took": ended, "last_waits": last, "paid": size * ended, "busy": used / (size * ended)}
            log.info(
                "%s processes: %5.1f s, the last waits %5.1f s, %3.0f %% busy",
                size,
                ended,
                last,
                100 * used / (size * ended),
            )

        found = {
            "took": took,
            "waits": waits,
            "used": used,
            "sizes": sizes,
            "at": sorted({span["at"] for span in spans}),
        }
        if curve:
            peak = max(look["waiting"] + look["running"] for look in curve)
            asked = {most: wanted_workers(peak, 1, 0, most) for most in SIZES}
            log.info(
                "At most %s tasks waited or ran: workers of one process that are wanted, by bound: %s", peak, asked
            )
            log.info("%.1f process-seconds were there, %.1f of them at work", paid(curve), used)
            found |= {"peak": peak, "wanted": asked, "paid": paid(curve)}
        memory = max(span["memory_mb"] for span in spans)
        share = max(span["cpu"] / max(span["ended"] - span["started"], 0.001) for span in spans)
        log.info("A process took %s MB and %.2f CPUs with its task; this machine has %s", memory, share, os.cpu_count())
        return {**found, "memory_mb": memory, "cpus": share}

    items = burst()
    spans, curve = work.expand_kwargs(items), watch()
    items >> curve
    report(spans, curve)


executor_scaling()
