"""A worker runs as many tasks as it has processes and holds no more; all others wait in the broker.

Hint: `--concurrency` of a worker and `[celery] worker_prefetch_multiplier` decide; the log of `settings` shows both.
"""

import time
from collections import Counter

import pytest

from labs.processes import number
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import max_concurrent, span
from scenarios.observing import Look, Observation, process_table
from stacks.catalogue import find_lab

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

DAG = "35_03_03_worker_concurrency"
TASKS = 6

SHARED = "heavy_compute"
"""The queue that the slow and the fast worker both take from."""


@pytest.fixture(scope="module")
def loaded(airflow, celery, host, timeline):
    """A run whose first task is slow, and how many tasks waited in the broker and ran at each look."""
    looks, depths = [], []

    def watch(instances):
        looks.append(Look(instances, process_table(host("worker"))))
        depths.append({"waiting": celery.waiting("default")["default"], "running": looks[-1].count("running", "work")})

    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    run = airflow.trigger(DAG, {"tasks": TASKS, "seconds": 1, "slow_seconds": 12})
    timeline(run)
    run = airflow.wait(run, 240, watch=watch)
    assert run.state == "success", airflow.explain(run)
    return Observation(airflow, run, airflow.task_instances(run), looks), depths


@pytest.fixture(scope="module")
def slots(lab):
    """Processes of the worker `default-1`."""
    return find_lab(lab.outputs["lab"]).workers["default"].concurrency


@pytest.fixture(scope="module")
def holds(lab):
    """How many messages each of the workers with one process may hold: worker → number."""
    workers = find_lab(lab.outputs["lab"]).workers
    assert (workers["heavy"].concurrency, workers["compute"].concurrency) == (1, 1)
    return {"heavy-1": workers["heavy"].prefetch, "compute-1": workers["compute"].prefetch}


def test_a_worker_runs_no_more_than_its_processes(loaded, slots, evidence):
    """All tasks were ready at the same time, and never more of them ran than the worker has processes."""
    run, _ = loaded
    works = run.all("work")
    evidence("tasks", [{"task": ti.label, "started": ti.started, "ended": ti.ended} for ti in works])
    assert len(works) == TASKS
    assert {ti.hostname for ti in works} == {"default-1"}
    assert max_concurrent(works) == slots, f"{max_concurrent(works)} ran at once on {slots} processes"


def test_the_others_wait_in_the_broker(loaded, slots, evidence):
    """Seen from outside, the broker's list is not empty while the worker is busy, and empty in the end."""
    _, depths = loaded
    evidence("looks", depths)
    busy = [look["waiting"] for look in depths if look["running"] == slots]
    assert busy, "no look found the worker busy"
    assert max(busy) > 0, "nothing waited in the broker while the worker was busy: it holds more than it runs"
    assert depths[-1]["waiting"] == 0


def test_a_worker_holds_what_it_runs(loaded, slots, evidence):
    """Each worker says so: one message per process; all of them active, the rest with the broker."""
    run, _ = loaded
    told, watched = run.xcom("settings"), run.xcom("watch")
    limits = {worker.partition("@")[0]: (each["processes"], each["may_hold"]) for worker, each in told.items()}
    evidence("limits", told)
    evidence("watched", watched)
    assert limits["default-1"] == (slots, slots), "it may hold more messages than it has processes"
    assert watched["most_active"] == slots
    assert watched["most_reserved"] <= slots
    assert watched["most_waiting"] > 0


@pytest.mark.needs(local="processes")
def test_a_free_process_takes_the_next_task(loaded, slots, celery, evidence):
    """Tasks are not dealt out: the process with the slow task took the fewest, the other one the rest."""
    run, _ = loaded
    works, spans = run.all("work"), run.xcoms("work")
    (slow,) = [span["process"] for span in spans if span["number"] == 1]
    taken = Counter(span["process"] for span in spans)
    tables = [look.processes for look in run.looks]
    parents = {table[ti.pid].ppid for table in tables for ti in works if ti.pid in table}
    evidence("tasks by process", taken)
    evidence("processes seen from outside", parents)
    assert len(taken) == slots
    assert all(taken[slow] < taken[other] for other in taken if other != slow), "the slow task cost the others nothing"
    assert slow in parents, "the process table never showed the slow task below the process that it named"
    assert parents <= set(taken), "a task ran below a process that no task named"
    pool = {number(child) for child in celery.worker("default-1").children(recursive=True)}
    assert set(taken) <= pool, "these are not processes of the worker"


@pytest.mark.parametrize(("slow", "fast"), [("heavy-1", "compute-1"), ("compute-1", "heavy-1")])
def test_what_a_slow_worker_holds_waits_behind_it(slow, fast, holds, airflow, celery, start_probe, evidence):
    """One queue, a slow and a fast worker: what the slow one holds waits, although the fast one has nothing to do."""
    tasks, both, seen = 6, sum(holds.values()), []

    def settled(when, **wanted):
        """The broker, and the files of the tasks, show that for two seconds."""
        since = []

        def look():
            running = Counter(each.service for each in probe.unended())
            broker = {"waiting": celery.waiting(SHARED)[SHARED], "held": celery.unacknowledged()}
            found = {**broker, "slow": running[slow], "fast": running[fast]}
            since[:] = [*since, time.monotonic()] if found == wanted else []
            return (True if since and time.monotonic() - since[0] > 2 else None), str(found)

        with late_fails():
            until(look, what=f"{wanted} when {when}", timeout=30)
        seen.append({"when": when, **wanted})

    with celery.serving("compute-1", SHARED):
        probe = start_probe("probe_heavy")
        settled("both run one", waiting=tasks - both, held=both, slow=1, fast=1)
        probe.release(fast)
        settled("the fast one has done what it got", waiting=0, held=holds[slow], slow=1, fast=0)
        probe.release()
        airflow.wait(probe.run)
    took = Counter(each.service for each in probe.executions())
    evidence("messages that wait in the broker and that workers hold, and tasks that run", seen)
    evidence("executed", took)
    assert took == {slow: holds[slow], fast: tasks - holds[slow]}
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}


def test_a_larger_pool_does_what_was_computed(celery, run_dag, slots, evidence):
    """`report` says how long pools need at least: one of twice the size needs more, but less than the usual one."""
    with celery.larger_pool("default-1", slots):
        run = run_dag({"tasks": 7, "seconds": 4, "slow_seconds": 8}, timeout=240)
    works = run.all("work")
    computed = {int(size): seconds for size, seconds in run.xcom("report")["pool_sizes"].items()}
    evidence("seconds that pools of these sizes need at least", computed)
    evidence(f"seconds that one of {2 * slots} took", span(works))
    assert max_concurrent(works) == 2 * slots
    assert computed[1] == sum(each["seconds"] for each in run.xcoms("work"))
    assert computed[2 * slots] == computed[7] == 8, "a pool needs as long as the slow task, however large"
    assert computed[2 * slots] <= span(works) < computed[slots], f"a pool of {2 * slots} took {span(works):.1f} s"


def test_a_time_limit_frees_the_process(loaded, evidence):
    """`execution_timeout` ended the task that would have held a process for an hour."""
    run, _ = loaded
    after, ti = run.xcom("endless"), run.one("endless")
    evidence("cut off", {"after": after, "seconds": ti.seconds})
    assert ti.state == "success"
    assert 1 < after < 30, f"cut off after {after} s, not after about 2 s"
