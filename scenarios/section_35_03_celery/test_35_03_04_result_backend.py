"""The result backend says that a message was worked off: no XCom, and not whether the task failed.

Hint: the tables `celery_taskmeta`, `task_instance` and `xcom` of the metadata database hold the three answers.
"""

import pytest

from labs.airflow import AirflowError

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")


@pytest.fixture(scope="module")
def ran(run_dag):
    """One run; its task `fail` fails on purpose."""
    return run_dag()


@pytest.fixture(scope="module")
def messages(ran, celery):
    """Task → the id of the message that brought it, from the logs of the workers."""
    return {taken.task_id: taken.message for taken in celery.taken(ran.run)}


def test_one_row_per_message_and_no_value(ran, messages, celery, evidence):
    """The table has one row for each task of the run; each says SUCCESS, and none holds a result."""
    rows = celery.ended(messages.values())
    table = [
        {"task": task, "airflow": ran.one(task).state, **vars(rows[message])} for task, message in messages.items()
    ]
    evidence("rows of celery_taskmeta", table)
    assert set(messages) == {ti.task_id for ti in ran.instances}, "the workers logged other tasks than Airflow has"
    for row in table:
        assert row["status"] == "SUCCESS", f"the row of {row['task']} says {row['status']}"
        assert row["empty"], f"the row of {row['task']} holds a value"


def test_a_failed_task_has_a_success(ran, messages, celery, evidence):
    """Airflow says that `fail` failed; for Celery its worker did its part."""
    row = celery.ended([messages["fail"]])[messages["fail"]]
    evidence("fail", {"in Airflow": ran.one("fail").state, "in Celery": row.status})
    assert ran.one("fail").state == "failed"
    assert row.status == "SUCCESS"


def test_the_xcom_takes_another_way(ran, messages, evidence):
    """The return value is in Airflow's own table; the row was STARTED while the task ran; failing left no value."""
    told = ran.xcom("produce")
    evidence("XCom of produce", told)
    assert told == {"answer": 42, "while_running": "STARTED"}
    assert ran.xcom("produce", key="celery_task") == messages["produce"], "another message brought the task"
    with pytest.raises(AirflowError) as refusal:
        ran.xcom("fail")
    assert refusal.value.status == 404
    (line,) = [line for line in ran.log("compare").splitlines() if "The message that started this task holds" in line]
    evidence("log", line)
    assert "'ti'" in line
    assert "xcom" not in line.partition("holds")[2].partition(":")[0].lower()


def test_the_comparison_is_right(ran, messages, celery, evidence):
    """What the task `compare` read in the three places is what they show from outside."""
    told = ran.xcom("compare")
    rows = celery.ended(messages[task] for task in told)
    evidence("told", told)
    assert set(told) == {"produce", "fail"}
    for task, each in told.items():
        assert each["celery_task"] == messages[task]
        assert (each["airflow_state"], each["celery_state"]) == (ran.one(task).state, rows[messages[task]].status)
        assert each["celery_result"] is None
    assert told["produce"]["xcom"]["answer"] == 42


def test_the_clean_up_removes_what_has_expired(ran, messages, celery, evidence):
    """The row of two days ago is gone, the rows of this run stay, and so do its XComs."""
    told = ran.xcom("cleanup")
    left = celery.results([told["old"], messages["produce"], messages["fail"]])
    evidence("rows", {"old": told["old"] in left, **{task: messages[task] in left for task in ("produce", "fail")}})
    assert told["gone"] == "PENDING"
    assert set(left) == {messages["produce"], messages["fail"]}
    assert ran.xcom("configuration") == {"backend": "DatabaseBackend", "from": "env var", "expires_seconds": 86400}
