"""Independent tasks run at the same time on LocalExecutor, each in a process of its own.

Hint: `[core] parallelism` is the number of LocalExecutor's processes; with 1, tasks run one after the other.
"""

import pytest

from scenarios.judge import all_overlap, processes, sequential, span

pytestmark = pytest.mark.needs(executor="LocalExecutor")

WORK = ["work_1", "work_2", "work_3", "work_4"]


@pytest.fixture(scope="module")
def together(run_dag, host):
    """A run with the lab's own parallelism."""
    return run_dag({"seconds": 3}, on=host("scheduler"))


def test_independent_tasks_run_at_the_same_time(together, evidence):
    """Four tasks that do not depend on each other all run at the same moment."""
    works = together.all(*WORK)
    evidence("tasks", [{"task": ti.task_id, "started": ti.started, "ended": ti.ended} for ti in works])
    evidence("most running at one look", max(look.count("running") for look in together.looks))
    assert len(works) == len(WORK)
    assert all_overlap(works), "not all four tasks ran at the same moment"
    assert max(look.count("running") for look in together.looks) == len(WORK), "the API never showed all four running"


def test_each_task_is_a_process_of_its_own(together, evidence):
    """Each runs in a process of its own, below a worker process of its own, below the scheduler."""
    works = together.all(*WORK)
    assert len(processes(works)) == len(WORK), "tasks shared a process"
    assert [xcom["pid"] for xcom in together.xcoms(*WORK)] == [ti.pid for ti in works], "Airflow recorded other pids"

    tables = [look.processes for look in together.looks if all(ti.pid in look.processes for ti in works)]
    assert tables, "the scheduler's host never showed the four processes at the same moment"
    workers = {tables[0][ti.pid].ppid for ti in works}
    schedulers = {tables[0][worker].ppid for worker in workers}
    family = [tables[0][pid] for pid in [*schedulers, *workers, *(ti.pid for ti in works)]]
    evidence("processes", [{"pid": each.pid, "parent": each.ppid, "command": each.command} for each in family])
    assert len(workers) == len(WORK), "two tasks ran below the same worker process"
    assert all("LocalExecutor" in tables[0][worker].command for worker in workers)
    assert len(schedulers) == 1, "the worker processes have different parents"
    assert all("airflow scheduler" in tables[0][scheduler].command for scheduler in schedulers)


def test_the_log_shows_it(together, evidence):
    """The log of `compare` draws four bars that lie above each other, and its figures are right."""
    lines = [line for line in together.log("compare").splitlines() if "█" in line or "same time" in line]
    evidence("log", lines)
    bars = [line.partition("pid")[2] for line in lines if "█" in line]
    first_block, last_block = [bar.index("█") for bar in bars], [bar.rindex("█") for bar in bars]
    assert len(bars) == len(WORK)
    assert max(first_block) < min(last_block), "the bars do not lie above each other"
    assert "All four at the same time: True" in lines[-1]
    # a task's own span lies within the task instance's
    assert together.xcom("compare")["together"] <= span(together.all(*WORK))


def test_one_process_runs_them_one_at_a_time(lab, run_dag, together, evidence):
    """With one process they run one after the other, as on SequentialExecutor, which Airflow 3 no longer has."""
    with lab.reconfigured({"core.parallelism": "1"}):
        alone = run_dag({"seconds": 0.5})
    ways = {"together": together.all(*WORK), "one at a time": alone.all(*WORK)}
    rows = [(way, span(works), sum(ti.seconds for ti in works)) for way, works in ways.items()]
    evidence(
        "duration", [{"way": way, "from start to end": all_, "sum of the tasks": sum_} for way, all_, sum_ in rows]
    )
    assert sequential(ways["one at a time"]), "tasks overlapped although there was one process"
    speed_up, slow_down = (sum_ / all_ for _, all_, sum_ in rows)
    assert speed_up > 1 >= slow_down, "the tasks together were not faster than one at a time"
