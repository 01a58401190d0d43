"""The executor and its limits decide how many tasks run at once.

Hint: `[core] parallelism` is the upper limit of every executor, per scheduler; with 1, tasks run one at a time.
"""

import pytest

from scenarios.judge import max_concurrent, sequential, span

TASKS = 6
UNLIMITED = "32"
"""Airflow's default of `[core] parallelism`."""


@pytest.fixture(scope="module")
def parallelism(lab):
    """The limit that each scheduler of the lab was made with."""
    return int(lab.outputs["options"].get("core.parallelism", UNLIMITED))


@pytest.fixture(scope="module")
def many(run_dag):
    """A run with more equal tasks than a small lab has slots."""
    return run_dag({"tasks": TASKS, "seconds": 2})


def test_tasks_run_at_once_within_the_limit(many, lab, parallelism, evidence):
    """Several of the equal tasks run at once, and never more than all schedulers' parallelism allows."""
    limit = parallelism * len(lab.outputs["services"]["scheduler"])
    works = many.all("work")
    most = max_concurrent(works)
    evidence("tasks at once", {"most": most, "limit": limit, "tasks": len(works)})
    evidence("states at each look", [look.count("running") for look in many.looks])
    assert len(works) == TASKS
    assert most >= 2, f"of {TASKS} independent tasks only {most} ran at once"
    assert most <= limit, f"{most} tasks ran at once, but the limit is {limit}"
    assert max(look.count("running") for look in many.looks) <= limit


@pytest.mark.needs(executor="LocalExecutor")
def test_local_slots_are_processes(many, parallelism, evidence):
    """LocalExecutor ran them by as many worker processes as `parallelism`, each of which took several."""
    slots = [xcom["worker_pid"] for xcom in many.xcoms("work")]
    evidence("worker processes", slots)
    evidence("[core] parallelism", parallelism)
    assert len({ti.pid for ti in many.all("work")}) == TASKS, "two tasks ran in one process"
    assert 2 <= len(set(slots)) <= parallelism, (
        f"{len(set(slots))} worker processes ran the tasks, expected 2 to {parallelism}"
    )


def test_the_limits_are_named(many, parallelism, evidence):
    """The log names the limit of every executor; that of `[core] parallelism` is the lab's own."""
    lines = {
        line.partition(": ")[0].split()[-1]: line for line in many.log("limits").splitlines() if "Executor: " in line
    }
    evidence("log", list(lines.values()))
    told = many.xcom("limits")
    assert told["parallelism"] == parallelism, f"the log says {told['parallelism']}, the lab is made with {parallelism}"
    assert f"{parallelism} processes per scheduler" in lines["LocalExecutor"]
    assert f"{told['worker_concurrency']} processes per worker" in lines["CeleryExecutor"]
    assert f"{parallelism} pods" in lines["KubernetesExecutor"]
    assert "gone" in lines["SequentialExecutor"]
    assert "EdgeExecutor" in lines


def test_what_observe_counted(many, evidence):
    """The figures that `observe` logs agree with the times that Airflow recorded."""
    found, works = many.xcom("observe"), many.all("work")
    evidence("most at once", {"counted by the DAG": found["most_at_once"], "by Airflow's times": max_concurrent(works)})
    # each function ran within its task instance, so it cannot have met more of them
    assert 1 <= found["most_at_once"] <= max_concurrent(works)
    assert f"{TASKS} tasks, at most {found['most_at_once']} at once" in many.log("observe")


@pytest.mark.needs(executor="LocalExecutor")
def test_one_at_a_time(lab, run_dag, many, evidence):
    """With one slot they run one after the other: what SequentialExecutor did, which Airflow 3 no longer has."""
    with lab.reconfigured({"core.parallelism": "1"}):
        alone = run_dag({"tasks": 3, "seconds": 0.5})
    ways = {"the lab's limit": many.all("work"), "one slot": alone.all("work")}
    evidence(
        "tasks",
        [
            {"way": way, "most at once": max_concurrent(works), "from start to end": span(works)}
            for way, works in ways.items()
        ],
    )
    assert sequential(ways["one slot"]), "tasks overlapped although there was one slot"
    assert len({xcom["worker_pid"] for xcom in alone.xcoms("work")}) == 1, "more than one worker process ran them"
    assert "gone; its one task at a time is [core] parallelism = 1" in alone.log("limits")
