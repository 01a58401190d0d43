"""The scheduler decides that a task may run, its executor where, and a worker process runs it.

Hint: the log of `execution_path` draws the same path with the process ids of that run.
"""

from itertools import pairwise

import pytest

from labs.paths import run_directory
from labs.processes import marked, number
from scenarios.judge import followed
from scenarios.observing import process_table

STATIONS = ["scheduler", "executor", "worker", "execution_path"]


@pytest.fixture(scope="module")
def path(run_dag):
    """One run through all stations."""
    return run_dag()


def test_every_task_goes_the_same_way(path, evidence):
    """Each task is scheduled, then queued at the executor, then started by a worker; each station after the other."""
    stations = path.all(*STATIONS)
    steps = ("scheduled", "queued", "started", "ended")
    evidence("times", [{"task": ti.task_id, **{step: getattr(ti, step) for step in steps}} for ti in stations])
    for ti in stations:
        times = [path.run.queued, *(getattr(ti, step) for step in steps)]
        assert all(before <= after for before, after in pairwise(times)), f"{ti.task_id} took its steps out of order"
    tasks = {ti.task_id: ti for ti in stations}
    for before, after in pairwise(STATIONS):
        assert followed(tasks[before], tasks[after]), f"{after} did not wait for {before}"


def test_the_executor_is_the_labs(path, lab, executor, evidence):
    """A task knows at run time which executor it was given to, and logs it: the lab's first one."""
    found, asked = path.xcom("executor"), path.one("executor")
    evidence("executor", {"of the lab": lab.executors, "found by the task": found, "asked for": asked.executor})
    assert asked.executor is None, "the task asks for an executor of its own"
    assert found["executor"] == executor, f"the task found {found['executor']}, but the lab's executor is {executor}"
    assert found["queue"] == asked.queue
    assert f"it goes to {executor}" in path.log("executor")


def test_the_worker_is_the_recorded_process(path, evidence):
    """The process that ran the function is the one that Airflow recorded with the task instance."""
    found, recorded = path.xcom("worker"), path.one("worker")
    evidence("process", {"of the function": found["pid"], "recorded": recorded.pid, "host": recorded.hostname})
    assert (found["pid"], found["processes"][0]["pid"]) == (recorded.pid, recorded.pid), (
        f"the function ran in process {found['pid']}, but Airflow recorded {recorded.pid}"
    )


@pytest.mark.needs(executor="LocalExecutor")
def test_the_workers_parent_is_the_scheduler(path, lab, host, evidence):
    """On LocalExecutor the task's process is a child of a worker process, and that one of the lab's scheduler."""
    own = {number(process) for process in marked(str(run_directory(lab.name)), "scheduler")}
    table = process_table(host("scheduler"))
    chain = [process["pid"] for process in path.xcom("worker")["processes"]]
    above = [table[pid] for pid in chain[1:3]]
    evidence("parents of the task", [{"pid": p.pid, "parent": p.ppid, "command": p.command} for p in above])
    assert "LocalExecutor" in above[0].command, f"the task's parent is {above[0].command}"
    assert "airflow scheduler" in above[1].command, f"the worker's parent is {above[1].command}"
    assert above[0].ppid == above[1].pid
    assert {above[0].pid, above[1].pid} <= own, "these processes are none of this lab's"


def test_the_path_is_drawn(path, evidence):
    """The log of `execution_path` draws the path from the scheduler to the function, with the real pids."""
    drawn = [line.partition("▼ ")[2] for line in path.log("execution_path").splitlines() if "▼" in line]
    evidence("log", drawn)
    processes = [process["pid"] for process in reversed(path.xcom("worker")["processes"])]
    assert [line.split()[0] for line in drawn] == [
        *("scheduler", "executor", "worker"),
        *("process" for _ in processes),
        "your",
    ]
    assert path.run.run_id in drawn[0]
    assert [int(line.split()[1].rstrip(":")) for line in drawn[3:-1]] == processes
    assert processes[-1] == path.one("worker").pid
