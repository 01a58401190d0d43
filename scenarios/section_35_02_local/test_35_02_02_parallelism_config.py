"""`[core] parallelism` limits how many tasks LocalExecutor runs at once; the others wait as queued.

Hint: compare the lab's `[core] parallelism` with the number of tasks of the run: it must be smaller.
"""

import pytest

from scenarios.judge import max_concurrent, waits

pytestmark = pytest.mark.needs(executor="LocalExecutor")

TASKS = 10
SECONDS = 2


@pytest.fixture(scope="module")
def limit(lab):
    """The parallelism that the lab was made with."""
    return int(lab.outputs["options"]["core.parallelism"])


@pytest.fixture(scope="module")
def crowd(run_dag, host):
    """A run with more tasks than there are slots."""
    return run_dag({"tasks": TASKS, "seconds": SECONDS}, on=host("scheduler"))


def test_never_more_tasks_than_slots(crowd, limit, evidence):
    """As many tasks as `parallelism` run at once, never one more: by their times, their states, their processes."""
    works = crowd.all("work")
    pids = {ti.pid for ti in works}
    most = {
        "by their times": max_concurrent(works),
        "by their states": max(look.count("running") for look in crowd.looks),
        "by their processes": max(len(pids & set(look.processes)) for look in crowd.looks),
    }
    evidence("tasks at once", {"[core] parallelism": limit, "tasks": len(works), **most})
    assert len(works) == TASKS
    for how, at_once in most.items():
        assert at_once <= limit, f"{at_once} tasks ran at once {how}, but [core] parallelism is {limit}"
    assert most["by their times"] == limit, f"only {most['by their times']} of {limit} slots were ever taken at once"


def test_a_slot_is_a_process(crowd, limit, evidence):
    """The scheduler keeps as many worker processes as `parallelism` says, and each runs one task after another."""
    works = crowd.all("work")
    look = next(look for look in crowd.looks if any(ti.pid in look.processes for ti in works))
    a_task = next(look.processes[ti.pid] for ti in works if ti.pid in look.processes)
    scheduler = look.processes[a_task.ppid].ppid
    workers = {process.pid for process in look.processes.values() if process.ppid == scheduler}
    used = {look.processes[ti.pid].ppid for look in crowd.looks for ti in works if ti.pid in look.processes}
    evidence("worker processes", {"below the scheduler": workers, "ran these tasks": used, "tasks": len(works)})
    assert len(workers) == limit, f"the scheduler has {len(workers)} worker processes, but parallelism is {limit}"
    assert used <= workers, "a task ran below a process that is no worker of this scheduler"


def test_the_others_wait_as_queued(crowd, limit, evidence):
    """Tasks beyond the limit are handed over and wait as `queued` until another one has ended."""
    works = sorted(crowd.all("work"), key=lambda ti: ti.started)
    full = [look for look in crowd.looks if look.count("running", "work") == limit]
    evidence(
        "states while all slots were taken",
        [{state: look.count(state, "work") for state in ("running", "queued", "success")} for look in full],
    )
    evidence("seconds in queued", [round(wait, 1) for wait in waits(works)])
    assert any(look.count("queued", "work") for look in full), "no task was queued while all slots were taken"
    first_end = min(ti.ended for ti in works)
    assert all(ti.started >= first_end for ti in works[limit:]), "a task beyond the limit did not wait"
    assert max(waits(works[limit:])) >= SECONDS / 2, "no task waited as long as the others took"


def test_parallelism_and_max_active_tasks_are_two_limits(crowd, airflow, limit, evidence):
    """The log of `plan` names both limits, and it was not `max_active_tasks` that held the tasks back."""
    dag = airflow.dag(crowd.run.dag_id)
    limits = {"[core] parallelism": limit, "max_active_tasks": dag.max_active_tasks}
    lines = [line for line in crowd.log("plan").splitlines() if any(name in line for name in limits)]
    evidence("limits", limits)
    evidence("log", lines)
    for (name, value), line in zip(limits.items(), lines, strict=True):
        assert f"{name} " in line and f"= {value}," in line, f"the log says of {name}: {line}"
    assert dag.max_active_tasks >= TASKS, "max_active_tasks was the smaller limit"


def test_what_a_slot_costs(crowd, host, evidence):
    """Each slot is a whole Python process: the memory and the CPUs that the log names are the machine's."""
    pids = {ti.pid for ti in crowd.all("work")}
    seen = max(look.processes[pid].rss for look in crowd.looks for pid in pids & set(look.processes)) // 1024
    told = max(xcom["memory_mb"] for xcom in crowd.xcoms("work"))
    cpus = int(host("scheduler").check_output("getconf _NPROCESSORS_ONLN"))
    evidence("a slot", {"MB, by the log": told, "MB, by the process table": seen, "CPUs": cpus})
    log = crowd.log("observe")
    assert f"A slot took up to {told} MB" in log
    assert seen / 2 < told < seen * 2, f"the log says {told} MB, the process table {seen} MB"
    assert f"This machine has {cpus} CPUs" in log
