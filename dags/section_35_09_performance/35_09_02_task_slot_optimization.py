"""# 35.9.2 Task slots: enough of them, and none of them hogged

A task starts when everything that counts it has room for it:

| slots of | are set by | count | who waits for one is |
| --- | --- | --- | --- |
| its pool | *Admin → Pools*; 128 of `default_pool` | `pool_slots` of each task, queued or running | `scheduled` |
| its run | `max_active_tasks` of the DAG | tasks | `scheduled` |
| the scheduler | `[core] parallelism` | tasks | `scheduled`; with LocalExecutor `queued` |
| the executor | processes, workers × concurrency, room on nodes | tasks | `queued` |

So the state of those that wait says which slots are short. Slots of a pool cost nothing: make them fewer to protect
something, such as a database. Slots of an executor are processes or pods: more of them cost memory.

**Starvation**: here two long tasks and four short ones become ready at once, the long ones with the higher priority.

* `hogged`: a long task asks for two slots. In a pool of four, the two take all, and every short one waits.
* `shared_out`: the same, but a long one asks for three. A second one finds no room; the fourth slot serves short ones.

That needs a pool of four. Make it small for this DAG, and large again afterwards:

    airflow pools set default_pool 4 "for 35.9.2"
    airflow pools set default_pool 128 "Default pool"

| cure | what it does |
| --- | --- |
| more `pool_slots` for long tasks | fewer of them run at once, as here |
| a pool of their own for long tasks | the same, and what they leave is nobody's business but theirs |
| `max_active_tis_per_dag` | the same for one task, without a pool |
| a higher `priority_weight` for short tasks | nothing, once the long ones run: no task gives its slot back |
| deferring what only waits | no slot of an executor is held, nor one of a pool unless it includes deferred tasks |

The other way round, a task that asks for many slots may starve behind small ones: it starts when all its slots are free
at the same moment, and whoever needs fewer overtakes it. One that asks for more than its pool has never starts. At an
edge site it takes as many places of its worker, too: where the worker has two, a task of `shared_out` that asks for
three stays `queued` for ever.

**Watching slots**: *Admin → Pools*, `GET /api/v2/pools/default_pool`, the metrics `pool.open_slots`,
`pool.queued_slots` and `pool.starving_tasks`. Here each long task looks around while it works, through the API that
every task has.

**How many slots?** From the times of this run, `report` computes what pools of other sizes would change: time, the
share of the slots that is used, memory. From some size on the time stays, and the share falls. To have all slots in
use is not the aim: that is what it looks like when short tasks starve.

**What to look for**: in the grid, short tasks that are `scheduled` while long ones run; the logs of `hogged.long_1` and
`report`; *Pool slots* in the details of the task instances.
"""

import logging
import time

import psutil
from airflow.sdk import Param, cross_downstream, dag, task, task_group

log = logging.getLogger("airflow.task")

ARRANGEMENTS = {"hogged": 2, "shared_out": 3}
"""Task group → slots that a long task asks for; a short one asks for one."""

LONG, SHORT = ["long_1", "long_2"], ["short_1", "short_2", "short_3", "short_4"]

SIZES = (3, 4, 6, 8, 10)
"""Slots of the pools that `report` compares: from those that a long task needs to all that are asked for."""


def look(ti):
    """How many slots the tasks of this task's group have now, and how many of them wait for slots of the pool."""
    group = ti.task_id.rpartition(".")[0]
    asked = {f"{group}.{name}": ARRANGEMENTS[group] if name in LONG else 1 for name in LONG + SHORT}
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(asked), run_ids=[ti.run_id])[ti.run_id]
    taken = sum(slots for name, slots in asked.items() if states.get(name) in ("queued", "running"))
    return {"taken": taken, "waiting": sum(states.get(name) == "scheduled" for name in asked)}


def done(ti, started, **more):
    """What a task tells of the slots that it held."""
    memory = psutil.Process().memory_info().rss // 2**20
    group, _, name = ti.task_id.rpartition(".")
    return {
        "group": group,
        "name": name,
        "slots": ti.task.pool_slots,
        "memory_mb": memory,
        "started": started,
        "ended": time.time(),
        **more,
    }


def in_a_pool(size, tasks):
    """Seconds until a pool that starts whatever fits, in this order, is through with tasks; the most tasks at once."""
    waiting, running, now, most = list(tasks), [], 0.0, 0
    while waiting or running:
        for each in list(waiting):
            if each["slots"] <= size - sum(slots for _, slots in running):
                waiting.remove(each)
                running.append((now + each["ended"] - each["started"], each["slots"]))
        most = max(most, len(running))
        next_end = min(running)
        running.remove(next_end)
        now = next_end[0]
    return now, most


@dag(
    dag_id="35_09_02_task_slot_optimization",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "performance", "intermediate", "success"],
    params={
        "seconds": Param(8, type="number", minimum=1, maximum=120, description="how long each long task works"),
        "slots": Param(4, type="integer", minimum=3, description="how many slots default_pool has: only to compute"),
    },
    doc_md=__doc__,
)
def task_slot_optimization():
    @task(priority_weight=10)
    def long(params=None, ti=None):
        """Holds its slots for a while; meanwhile it looks, each second, who else has some and who waits for some."""
        started, looks = time.time(), []
        while time.time() < started + params["seconds"]:
            looks.append(look(ti))
            log.info("%(taken)s slots are taken by this group, %(waiting)s of its tasks wait for some.", looks[-1])
            time.sleep(max(0, min(1, started + params["seconds"] - time.time())))
        return done(ti, started, looks=looks)

    @task
    def short(ti=None):
        """Needs one slot for a second."""
        started = time.time()
        time.sleep(1)
        return done(ti, started)

    def six_tasks(slots):
        """The same tasks for each arrangement; only what a long one asks for differs."""
        longs = [long.override(task_id=name, pool_slots=slots)() for name in LONG]
        return longs + [short.override(task_id=name)() for name in SHORT]

    @task_group
    def hogged():
        """Two long tasks fill the pool."""
        return six_tasks(ARRANGEMENTS["hogged"])

    @task_group
    def shared_out():
        """One long task at a time leaves a slot to the short ones."""
        return six_tasks(ARRANGEMENTS["shared_out"])

    @task
    def report(tasks, params=None):
        """For each arrangement: who starved, what share of the slots was used, what a pool of another size changes."""
        found = {}
        for group in ARRANGEMENTS:
            own = [each for each in tasks if each["group"] == group]
            work = sum(each["slots"] * (each["ended"] - each["started"]) for each in own)
            first_end = min(each["ended"] for each in own if each["name"] in LONG)
            behind = sum(each["started"] >= first_end for each in own if each["name"] in SHORT)
            took = max(each["ended"] for each in own) - min(each["started"] for each in own)
            used, memory = work / (params["slots"] * took), max(each["memory_mb"] for each in own)
            log.info("%s: %s of %s short tasks began only when a long one had ended.", group, behind, len(SHORT))
            values = (took, used * 100, params["slots"], memory)
            log.info("    %.1f s, %.0f %% of %s slots used; a task takes %s MB", *values)
            sizes = []
            for size in SIZES:
                seconds, most = in_a_pool(size, own)
                sizes.append({"slots": size, "seconds": seconds, "used": work / (size * seconds), "mb": most * memory})
                values = (size, seconds, sizes[-1]["used"] * 100, most, most * memory)
                log.info("    a pool of %2s: at least %4.1f s, %3.0f %% used, %s tasks at once, %s MB", *values)
            found[group] = {"behind": behind, "seconds": took, "used": used, "memory_mb": memory, "sizes": sizes}
        return found

    first, second = hogged(), shared_out()
    cross_downstream(first, second)
    report([*first, *second])


task_slot_optimization()
