"""What the DAG reads in the logs of scheduler, workers and tasks is what Airflow and the workers say themselves.

Hint: the lines that it looks for are at the top of the DAG's file; a new release of Airflow may word them otherwise.
"""

import math

import pytest

from labs.airflow import AirflowError
from labs.processes import number

pytestmark = pytest.mark.needs(default_executor=("CeleryExecutor", "KubernetesExecutor"), section="35.8")

on_workers = pytest.mark.needs(default_executor="CeleryExecutor")

with_logs = pytest.mark.needs(
    default_executor="CeleryExecutor", because="the log of a task goes with its pod, so no other task reads it"
)

STARTS, ENDS = {"CeleryExecutor": -2, "KubernetesExecutor": -30}, {"CeleryExecutor": 2, "KubernetesExecutor": 20}
"""Seconds by which what runs a task may begin before it, and end after it: a pod has to import Airflow first."""

WORK = ("quick", "slow", "fails_once")


def phase(sighting):
    """The phase of a pod as it was seen."""
    return sighting.pod["status"].get("phase")


@pytest.fixture(scope="module")
def ran(run_dag, logs_for_tasks):
    """One run."""
    return run_dag({"seconds": 4, "service_logs": str(logs_for_tasks)}, timeout=180)


@pytest.fixture(scope="module")
def rows(ran):
    """Task → what the DAG put together of its first try."""
    return {row["task"]: row for row in ran.xcom("correlate")}


@pytest.fixture(scope="module")
def first_tries(ran, airflow):
    """Task → its first try, as Airflow has it."""
    return {name: airflow.tries(ran.one(name))[0] for name in WORK}


def test_the_logs_agree_with_airflow(rows, first_tries, executor, evidence):
    """Queued, started, ended: what the lines say is about what Airflow recorded, in the right order."""
    table = [
        {
            "task": name,
            "queued": rows[name]["queued"] - ti.queued.timestamp(),
            "started": rows[name]["started"] - ti.started.timestamp(),
            "ended": rows[name]["ended"] - ti.ended.timestamp(),
        }
        for name, ti in first_tries.items()
    ]
    evidence("seconds between the logs and Airflow's records", table)
    for row in table:
        assert abs(row["queued"]) < 1, row
        assert STARTS[executor] < row["started"] <= 0.1, f"{row}: it is started before it says that it runs"
        assert -0.1 <= row["ended"] < ENDS[executor], row
    for name, row in rows.items():
        steps = [row[step] for step in ("queued", "received", "started", "ended", "heard")]
        assert steps == sorted(steps), f"the steps of {name} are out of order: {steps}"


@pytest.mark.needs(default_executor="KubernetesExecutor")
def test_the_pods_are_those_of_the_cluster(rows, ran, evidence):
    """The joint of the log: each task's first pod by name, when it ran and when it had ended, as a watch saw it too."""
    lives = {life.task_id: life for life in ran.history.lives(ran.run) if life.try_number == 1}
    seen = {name: {phase(each): each.at for each in reversed(lives[name].sightings)} for name in WORK}
    table = [
        {
            "task": name,
            "pod": rows[name]["message"],
            "created": rows[name]["received"] - lives[name].sightings[0].at,
            "ran": rows[name]["started"] - seen[name]["Running"],
            "ended": rows[name]["ended"] - min(seen[name].get(each, math.inf) for each in ("Succeeded", "Failed")),
        }
        for name in WORK
    ]
    evidence("seconds between the log and a watch of the pods", table)
    assert {name: rows[name]["message"] for name in WORK} == {name: lives[name].name for name in WORK}
    for row in table:
        assert all(abs(row[step]) < 2 for step in ("created", "ran", "ended")), row


@on_workers
def test_the_messages_are_those_of_the_workers(rows, ran, celery, evidence):
    """The joint of the logs: worker and message of each task, as read by somebody else."""
    taken = {(t.task_id, t.message): t.worker for t in celery.taken(ran.run)}
    told = {(name, row["message"]): row["worker"] for name, row in rows.items()}
    evidence("messages", [{"task": task, "message": m, "worker": worker} for (task, m), worker in told.items()])
    assert set(rows) == set(WORK)
    assert told.items() <= taken.items()
    assert rows["slow"]["worker"] == "io-1"
    assert rows["quick"]["worker"] == "default-1"


@with_logs
def test_the_times_are_those_of_the_tries(ran, first_tries, evidence):
    """By its own log each try took as long as Airflow recorded, and the slow one took the longest."""
    told = ran.xcom("times")
    recorded = {name: ti.seconds for name, ti in first_tries.items()}
    evidence("seconds", [{"task": n, "its log": told[f"{n} attempt=1"], "Airflow": s} for n, s in recorded.items()])
    for name, seconds in recorded.items():
        assert abs(told[f"{name} attempt=1"] - seconds) < 1.5, f"{name} took {seconds} s"
    assert "fails_once attempt=2" in told
    assert max(told, key=told.get) == "slow attempt=1"


@with_logs
def test_the_error_is_found_where_it_was(ran, airflow, evidence):
    """One pattern, in the first try of one task: not in the second, and not elsewhere."""
    told = ran.xcom("errors")
    evidence("patterns", told)
    assert [row["in"] for row in told if "refused" in row["pattern"]] == [["fails_once attempt=1"]]
    assert len(told) == 1, f"other patterns were found too: {told}"
    assert "Connection refused" in airflow.log(ran.one("fails_once"), try_number=1)
    assert "Connection refused" not in airflow.log(ran.one("fails_once"), try_number=2)
    with pytest.raises(AirflowError):
        ran.xcom("fails_once", key="no such key")


@on_workers
def test_the_resources_are_those_of_the_workers(ran, celery, lab, evidence):
    """Main process and pool of each worker are those of the process table, with about the memory that it shows.

    In containers a task sees the processes of its own worker alone, and says nothing of the others' memory.
    """
    told = {worker.partition("@")[0]: each for worker, each in ran.xcom("resources")["workers"].items()}
    evidence("workers", [{"worker": name, **each} for name, each in told.items()])
    assert set(told) == set(celery.queues())
    for name, each in told.items():
        main = celery.worker(name)
        assert each["pid"] == number(main)
        assert set(each["pool"]) <= {number(child) for child in main.children(recursive=True)}
        now = sum(p.memory_info().rss for p in (main, *main.children())) // 2**20
        if each["memory_mb"] is not None:
            assert 0.5 < each["memory_mb"] / now < 2, f"{name} holds {now} MB, not {each['memory_mb']}"
        assert each["cpu_seconds"] > 0
    seen = {name for name, each in told.items() if each["memory_mb"] is not None}
    assert seen == (set(told) if lab.platform == "process" else {ran.one("resources").hostname})
