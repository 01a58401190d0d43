"""`max_active_tasks` limits each run of a DAG; `[core] parallelism` limits all runs together.

Hint: the limit stands in the DAG, and since Airflow 3 it counts per run: one run alone shows it already.
"""

import pytest

from scenarios.judge import max_concurrent, peak
from scenarios.observing import Look, Observation

pytestmark = pytest.mark.needs(executor="LocalExecutor")

DAG = "35_02_03_max_active_tasks_per_dag"
ALLOWED = 2
RUNS = 3


@pytest.fixture(scope="module")
def runs(airflow, timeline):
    """Several runs at the same time, looked at together; each has more tasks than its limit allows."""
    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    started = [airflow.trigger(DAG, {"tasks": 4, "seconds": 2}) for _ in range(RUNS)]
    looks = [[] for _ in started]

    def watch(_):
        for run, seen in zip(started, looks, strict=True):
            seen.append(Look(airflow.task_instances(run), {}))

    for run in started:
        timeline(run)
    ended = [airflow.wait(run, watch=watch) for run in started]
    assert {run.state for run in ended} == {"success"}, "\n".join(airflow.explain(run) for run in ended)
    return [
        Observation(airflow, run, airflow.task_instances(run), seen) for run, seen in zip(ended, looks, strict=True)
    ]


def test_each_run_keeps_to_the_limit(runs, airflow, evidence):
    """In each run, two tasks queued or running at once and never three, although more are ready and slots are free."""
    active = [peak((ti.queued.timestamp(), ti.ended.timestamp(), 1) for ti in run.all("work")) for run in runs]
    most = [max_concurrent(run.all("work")) for run in runs]
    evidence("most tasks queued or running at once, run by run", active)
    evidence("most tasks running at once, run by run", most)
    assert airflow.dag(DAG).max_active_tasks == ALLOWED, "the DAG does not set max_active_tasks=2"
    assert all(len(run.all("work")) > ALLOWED for run in runs)
    assert active == [ALLOWED] * RUNS, f"{active} tasks were active at once in the runs; each allows {ALLOWED}"
    # three runs share the slots of `parallelism`: one of two active tasks may wait for a slot all the time
    assert max(most) == ALLOWED, f"{most} tasks ran at once in the runs; each allows {ALLOWED}"


def test_tasks_held_back_are_scheduled(runs, evidence):
    """A task that must wait for this limit is `scheduled`: the executor does not even get it."""
    looks = [look for run in runs for look in run.looks]
    active = [look.count("queued") + look.count("running") for look in looks]
    held = [look for look, count in zip(looks, active, strict=True) if count == ALLOWED and look.count("scheduled")]
    evidence("looks", {"all": len(looks), "at the limit, with tasks held back as scheduled": len(held)})
    evidence("most queued or running in a run at a look", max(active))
    assert max(active) <= ALLOWED, f"{max(active)} tasks of a run were queued or running at once"
    assert held, "no look showed a task held back as scheduled"


def test_all_runs_together_keep_to_parallelism(runs, lab, evidence):
    """Several runs run more tasks than one is allowed, but never more than `[core] parallelism`."""
    parallelism = int(lab.outputs["options"]["core.parallelism"])
    most = max_concurrent(ti for run in runs for ti in run.all("work"))
    running = [
        sum(look.count("running") for look in moment) for moment in zip(*(run.looks for run in runs), strict=True)
    ]
    evidence(
        "tasks of all runs at once", {"by their times": most, "at a look": max(running), "parallelism": parallelism}
    )
    assert most > ALLOWED, "the runs together did not run more tasks than one run may"
    assert most <= parallelism, f"{most} tasks ran at once, but [core] parallelism is {parallelism}"


def test_the_log_names_the_limits(runs, airflow, lab, evidence):
    """The log names this DAG's limit, the default for other DAGs, and the one that decided."""
    default = airflow.dag("35_02_02_parallelism_config").max_active_tasks  # which sets none
    plan, observe = runs[0].log("plan"), runs[0].log("observe")
    words = [
        f"max_active_tasks                = {ALLOWED},",
        f"[core] max_active_tasks_per_dag = {default},",
        f"[core] parallelism              = {lab.outputs['options']['core.parallelism']},",
    ]
    evidence("log", [line for line in (plan + observe).splitlines() if "max_active" in line])
    for each in words:
        assert each in plan, f"the log of plan does not say {each!r}"
    assert "decides: max_active_tasks" in observe, "the log names another limit as the one that decided"
