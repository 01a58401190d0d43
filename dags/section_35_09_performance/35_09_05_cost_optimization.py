"""# 35.9.5 What workers cost, and what they are worth

What is paid for is the time that workers are there, whether they work or not. So there are four things to turn:

| what | saves | costs |
| --- | --- | --- |
| fewer workers while there is little to do | idle hours | the wait until there are more again |
| none at night (KEDA, or a schedule) | the last idle worker | the first task waits for a worker to start |
| workers of the right size | memory and CPU that are asked for and never used | a task that grows is killed |
| spot (preemptible) instances | half of the price and more | they go at any time, with seconds of notice |

**Spot**: AWS says it two minutes before, Google and Azure 30 s. On Kubernetes the node is then drained: its pods get
SIGTERM and what is left of the notice. A Celery worker takes nothing more and ends what it runs, if that is shorter
than the notice. What is longer is killed, so a task for such workers has `retries`, works in *units*, and notes each
where the next try finds it (35.10.4 has more of that): what is lost is one unit, not all. Effects of a unit that is
done twice must not add up. What must be done in time, and cannot be cut into units, does not go there.

Keep them apart by a queue (here `compute`) whose workers tolerate the taint of spot nodes; scheduler, API server and
database stay on nodes that are not taken away.

**Size**: `sized` measures what a piece of work takes; a request is that and a fifth more, a limit half again. On
the KubernetesExecutor it is each task's own (`pod_override`), for workers it is times their processes.

**Cost or time**: more workers cost little more as long as all of them work, and each is paid for while the last one
works on. `report` takes the cheapest plan that is done in time; where none is, the fastest.

**What to look for**: the two tries of `spot` for item 1 and their logs; the tables in the logs of `idle` and `report`.
"""

import json
import logging
import math
import os
import resource
import signal
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from airflow.sdk import Param, dag, task

log = logging.getLogger("airflow.task")

QUEUE = "compute"
"""Of workers that may go at any time."""

PRICES = {"on demand": 1.0, "spot": 0.35}
"""Of a worker for a second."""

SIZES = (1, 2, 4)
"""Numbers of workers that are compared."""

DAY = (0, 0, 4, 40, 12, 0, 0, 6, 18, 22, 20, 16, 10, 14, 20, 24, 18, 8, 4, 2, 0, 0, 0, 0)
"""Tasks in each hour of a day, of an hour's tenth each: a nightly load, and what people start."""

PER_WORKER = 10
"""Such tasks that a worker does in an hour."""

MEGABYTE = 2**20


class Units:
    """Which units are done, and in which try: a file for each, whole or not there."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def note(self, unit, **what):
        fresh = self.folder / f"{unit}.new"
        fresh.write_text(json.dumps({"unit": unit, **what}))
        fresh.replace(self.folder / f"{unit}.json")

    def done(self):
        found = [json.loads(file.read_text()) for file in self.folder.glob("*.json")]
        return sorted(found, key=lambda note: note["unit"])


def workers_by_hour(load, least):
    """Workers that an autoscaler of tasks keeps in each hour."""
    return [max(least, math.ceil(tasks / PER_WORKER)) for tasks in load]


def makespan(seconds, workers):
    """How long so many workers take, if each takes the next piece of work when it has none."""
    busy_until = [0] * workers
    for each in seconds:
        busy_until[busy_until.index(min(busy_until))] += each
    return max(busy_until)


def plans(seconds, again):
    """What each plan takes and costs.

    Args:
        seconds: of each piece of work, if nothing comes between.
        again: seconds that a worker which goes costs: work that is done twice, and the time until somebody does it.
    """
    found = []
    for kind, price in PRICES.items():
        lost = again if kind == "spot" else 0
        for workers in SIZES:
            took = makespan(seconds, workers) + lost
            found.append({"plan": f"{workers} {kind}", "took": took, "cost": price * workers * took})
    return found


def best(found, deadline):
    """The cheapest plan that is done in time; the fastest where none is."""
    in_time = [plan for plan in found if plan["took"] <= deadline]
    return min(in_time, key=lambda plan: plan["cost"]) if in_time else min(found, key=lambda plan: plan["took"])


@dag(
    dag_id="35_09_05_cost_optimization",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "performance", "intermediate", "success"],
    params={
        "items": Param(5, type="integer", minimum=1, maximum=16, description="pieces of work"),
        "units": Param(4, type="integer", minimum=1, maximum=60, description="what each consists of"),
        "seconds": Param(0.5, type="number", minimum=0, maximum=30, description="how long a unit takes"),
        "gone_after": Param(
            2, type="integer", minimum=0, description="units before the worker of item 1 goes, once; 0: it stays"
        ),
        "deadline": Param(6, type="number", minimum=0, description="seconds within which all must be done"),
        "megabytes": Param(64, type="integer", minimum=1, maximum=300, description="what `sized` holds at once"),
    },
    doc_md=__doc__,
)
def cost_optimization():
    @task(queue="io_bound")
    def items(params=None):
        """The pieces of work."""
        return list(range(1, params["items"] + 1))

    @task(queue=QUEUE, retries=3, retry_delay=timedelta(seconds=1))
    def spot(item, params=None, ti=None, run_id=None):
        """Works in units, on a worker that may go: the next try begins behind the last unit that is noted."""
        began = time.time()
        units = Units(Path(os.environ["AIRFLOW_HOME"], "units", run_id, str(item)))
        done = len(units.done())
        log.info("Try %s of item %s begins behind unit %s, on %s", ti.try_number, item, done, ti.hostname)
        for unit in range(done + 1, params["units"] + 1):
            time.sleep(params["seconds"])
            units.note(unit, by=ti.try_number, worker=ti.hostname, at=time.time())
            if (item, ti.try_number, unit) == (1, 1, params["gone_after"]):
                log.info("Now this worker goes, and takes the try with it.")
                os.kill(os.getpid(), signal.SIGKILL)
        found = units.done()
        for file in units.folder.iterdir():
            file.unlink()
        units.folder.rmdir()
        return {"item": item, "units": found, "began": began, "ended": time.time()}

    @task(queue="io_bound")
    def sized(params=None):
        """Holds and computes something, and works out what a pod for it asks for."""
        began, cpu = time.time(), time.process_time()
        held = bytearray(params["megabytes"] * MEGABYTE)
        held[::4096] = b"x" * len(held[::4096])  # each page is really there
        sum(number % 7 for number in range(1_000_000))
        used = (time.process_time() - cpu) / (time.time() - began)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MEGABYTE
        asked = {"memory": math.ceil(peak * 1.2), "cpu": math.ceil(used * 1.2 * 1000)}
        limits = {"memory": math.ceil(asked["memory"] * 1.5)}
        log.info("%s MB and %.2f CPUs at the peak: requests %s, limits %s", peak, used, asked, limits)
        return {"peak": peak, "held": params["megabytes"], "requests": asked, "limits": limits}

    @task(queue="io_bound")
    def idle():
        """A day of one deployment: hours of workers that are paid for, by who decides how many there are."""
        most = max(workers_by_hour(DAY, 0))
        hours = {
            "always the most": most * len(DAY),
            "by a schedule: 1 at night, the most from 7 to 19, and at 3": sum(
                most if 7 <= hour < 19 or hour == 3 else 1 for hour in range(len(DAY))
            ),
            "by tasks, 1 at least": sum(workers_by_hour(DAY, 1)),
            "by tasks, none at least": sum(workers_by_hour(DAY, 0)),
        }
        for how, paid in hours.items():
            log.info("%-60s %3s worker-hours, %3.0f %% of them at work", how, paid, 100 * sum(DAY) / PER_WORKER / paid)
        return hours

    @task(queue="io_bound")
    def report(pieces, params=None):
        """What the units cost on plans of several sizes, at both prices, and which of them to take."""
        seconds, again = [], 0.0
        for piece in pieces:
            units = piece["units"]
            cuts = [(sooner, later) for sooner, later in pairwise(units) if later["by"] != sooner["by"]]
            lost = sum(later["at"] - sooner["at"] - params["seconds"] for sooner, later in cuts)
            seconds.append(len(units) * params["seconds"])
            again += lost
            tries = [unit["by"] for unit in units]
            log.info("item %s: units by try %s; nothing went on for %.1f s", piece["item"], tries, lost)
        found = plans(seconds, again)
        chosen = best(found, params["deadline"])
        for plan in found:
            late = "" if plan["took"] <= params["deadline"] else "  too late"
            log.info("%(plan)-12s %(took)6.1f s  cost %(cost)6.1f%(late)s", {**plan, "late": late})
        log.info("Within %s s: %s", params["deadline"], chosen["plan"])
        return {"seconds": seconds, "again": again, "plans": found, "chosen": chosen["plan"]}

    report(spot.expand(item=items()))
    sized()
    idle()


cost_optimization()
