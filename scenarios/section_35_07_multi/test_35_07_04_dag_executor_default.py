"""`default_args` give the tasks of a DAG an executor; the nearest value wins, and None follows the list.

Hint: the log of `report` says for each task which executor it got; a DAG has no `executor` of its own.
"""

import pytest

pytestmark = [
    pytest.mark.needs(executor=("LocalExecutor", "KubernetesExecutor"), section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]


@pytest.fixture(scope="module")
def defaulted(run_dag):
    """One run."""
    return run_dag()


@pytest.fixture(scope="module")
def given(words, executor):
    """Task → the executor that it has, and where that leads."""
    other = "LocalExecutor" if "LocalExecutor" in words else "KubernetesExecutor"
    return {
        "inherits": ("celery", "CeleryExecutor"),
        "overrides": (other, other),
        "opts_out": (None, executor),
        "site.inherits": ("edge", "EdgeExecutor"),
        "site.overrides": (other, other),
    }


def test_the_nearest_value_wins(defaulted, executed, given, evidence):
    """Group before DAG, the task before both: so Airflow recorded it, and so the executors' own traces say."""
    ran_on = executed(defaulted)
    found = {task: (defaulted.one(task).executor, ran_on[task]) for task in given}
    evidence("tasks", [{"task": task, "executor": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == given


def test_the_last_task_inherits_too(defaulted, executed, evidence):
    """`report` says nothing of executors, so it has that of the DAG, and not the first of the list."""
    ti = defaulted.one("report")
    evidence("report", {"executor": ti.executor, "hostname": ti.hostname})
    assert (ti.executor, executed(defaulted)["report"]) == ("celery", "CeleryExecutor")


def test_the_report_says_what_would_move(defaulted, executor, given, evidence):
    """Only what names no executor follows the list; all values are the same on every executor."""
    told = defaulted.xcom("report")
    evidence("told", told)
    assert told["default"] == executor
    assert told["executors"] == {task: word for task, (word, _) in given.items()}
    assert told["ran_on"] == {task: where for task, (_, where) in given.items()}
    assert told["follows"] == ["opts_out"]
    assert told["stays"] == sorted(set(given) - {"opts_out"})
    assert told["values"] == [sum(range(1_000))]


@pytest.mark.long
def test_another_order_moves_only_what_follows_the_list(lab, run_dag, executed, given, words, evidence):
    """Migration: with the second executor first and no DAG touched, the task that names none moves, and no other."""
    first, second, *rest = lab.executors
    with lab.reconfigured({}, executors=[second, first, *rest]):
        moved = run_dag()
        ran_on = executed(moved)
    found = {task: (moved.one(task).executor, ran_on[task]) for task in given}
    evidence("order of the list", {"before": lab.executors, "now": [second, first, *rest]})
    evidence("tasks", [{"task": task, "word": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == {**given, "opts_out": (None, list(words)[1])}
    assert given["opts_out"] != found["opts_out"]
