"""A worker runs as many tasks as it has processes and holds no more; all others wait in the broker.

Hint: `--concurrency` of a worker and `[celery] worker_prefetch_multiplier` decide; the log of `settings` shows both.
"""

from collections import Counter

import pytest

from labs.processes import number
from scenarios.judge import max_concurrent
from scenarios.observing import Look, Observation, process_table
from stacks.catalogue import find_lab

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

DAG = "35_03_03_worker_concurrency"
TASKS = 6


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


def test_a_time_limit_frees_the_process(loaded, evidence):
    """`execution_timeout` ended the task that would have held a process for an hour."""
    run, _ = loaded
    after, ti = run.xcom("endless"), run.one("endless")
    evidence("cut off", {"after": after, "seconds": ti.seconds})
    assert ti.state == "success"
    assert 1 < after < 30, f"cut off after {after} s, not after about 2 s"
