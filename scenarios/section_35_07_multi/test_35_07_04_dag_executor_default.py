"""`default_args` give the tasks of a DAG an executor; the nearest value wins, and None follows the list.

Hint: the log of `report` says for each task which executor it got; a DAG has no `executor` of its own.
"""

import pytest

pytestmark = [
    pytest.mark.needs(executor="LocalExecutor", section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

GIVEN = {
    "inherits": ("celery", "CeleryExecutor"),
    "overrides": ("LocalExecutor", "LocalExecutor"),
    "opts_out": (None, "LocalExecutor"),
    "site.inherits": ("edge", "EdgeExecutor"),
    "site.overrides": ("LocalExecutor", "LocalExecutor"),
}
"""Task → the executor that it has, and where that leads."""


@pytest.fixture(scope="module")
def defaulted(run_dag):
    """One run."""
    return run_dag()


def test_the_nearest_value_wins(defaulted, executed, evidence):
    """Group before DAG, the task before both: so Airflow recorded it, and so the executors' own traces say."""
    ran_on = executed(defaulted)
    found = {task: (defaulted.one(task).executor, ran_on[task]) for task in GIVEN}
    evidence("tasks", [{"task": task, "executor": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == GIVEN


def test_the_last_task_inherits_too(defaulted, executed, evidence):
    """`report` says nothing of executors, so it has that of the DAG, and not the first of the list."""
    ti = defaulted.one("report")
    evidence("report", {"executor": ti.executor, "hostname": ti.hostname})
    assert (ti.executor, executed(defaulted)["report"]) == ("celery", "CeleryExecutor")


def test_the_report_says_what_would_move(defaulted, executor, evidence):
    """Only what names no executor follows the list; all values are the same on every executor."""
    told = defaulted.xcom("report")
    evidence("told", told)
    assert told["default"] == executor
    assert told["executors"] == {task: word for task, (word, _) in GIVEN.items()}
    assert told["ran_on"] == {task: where for task, (_, where) in GIVEN.items()}
    assert told["follows"] == ["opts_out"]
    assert told["stays"] == sorted(set(GIVEN) - {"opts_out"})
    assert told["values"] == [sum(range(1_000))]
