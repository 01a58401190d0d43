"""Heartbeats, routes, crashes and the broker's address, as the DAG tells them and as they are from outside.

Hint: the log of the worker `default-1` says which of its processes died, and of what.
"""

import re

import pytest

from labs.results import plain
from labs.service_logs import service_logs

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.8")


@pytest.fixture(scope="module")
def workers(services, celery):
    """Each worker's main process before the run."""
    return {name: services.incarnation(name).id for name in celery.queues()}


@pytest.fixture(scope="module")
def ran(workers, run_dag):
    """One run: it fails, because one of its tasks does."""
    return run_dag(state="failed", timeout=180)


def name(worker):
    """A worker's name without its host."""
    return worker.partition("@")[0]


def test_every_worker_beats_and_answers(ran, celery, evidence):
    """Those that are heard are those that the lab has, each with at least two beats in five seconds."""
    told = {name(worker): each for worker, each in ran.xcom("heartbeats").items()}
    evidence("heard", told)
    assert set(told) == set(celery.queues())
    assert all(each["answers"] and each["beats"] >= 2 for each in told.values())


def test_the_routes(ran, celery, evidence):
    """Each queue is served by the workers that were started for it; the misspelled one by nobody."""
    told = {queue: [name(worker) for worker in each["workers"]] for queue, each in ran.xcom("routes").items()}
    evidence("routes", told)
    started = {queue: [worker] for worker, queues in celery.queues().items() for queue in queues}
    assert told == {**started, "defualt": []}


@pytest.mark.needs(local="folders")
def test_a_task_process_that_dies_is_reported_by_the_one_above(ran, airflow, evidence):
    """One try failed at once and one succeeded, each in a process of its own; without retries there is no second."""
    first, second = airflow.tries(ran.one("crash_of_the_task"))
    told = ran.xcom("crash_of_the_task")
    evidence("tries", [plain(ti.to_json()) for ti in (first, second)])
    assert (first.state, second.state) == ("failed", "success")
    assert first.pid != second.pid == told["pid"]
    assert first.seconds < 15, f"its end was noticed after {first.seconds:.0f} s, as if nobody had seen it"
    good = ran.one("crash_for_good")
    assert (good.state, good.try_number) == ("failed", 1)
    assert "Process terminated by signal" in airflow.log(good)


@pytest.mark.needs(local="folders")
def test_a_pool_process_that_dies_is_replaced(ran, airflow, services, workers, lab, evidence):
    """The worker's log names the very process and the signal; the worker lived on; another process took the retry."""
    ti, told = ran.one("crash_of_the_pool"), ran.xcom("crash_of_the_pool")
    (killed,) = re.findall(r"Process (\d+), above me, is killed", airflow.log(ti, try_number=1))
    said = service_logs(lab.outputs)[ti.hostname].read()
    lines = [line for line in said.splitlines() if re.search(rf"\b{killed}\b", line)]
    evidence("the worker's log of the process that died", lines[-3:])
    assert any("SIGKILL" in line and "exited" in line for line in lines), f"nothing says that {killed} died"
    assert (ti.state, ti.try_number, told["try"]) == ("success", 2, 2)
    assert told["supervisor"] != int(killed)
    assert {each: services.incarnation(each).id for each in workers} == workers, "a whole worker died"


def test_the_broker_is_reached_or_it_is_known_why_not(ran, evidence):
    """As configured it answers; each wrong URL fails at the step at which it is wrong, and in other words."""
    told = ran.xcom("broker")
    evidence("steps", [{"url": what, **each} for what, each in told.items()])
    assert {what: each["step"] for what, each in told.items()} == {
        "as configured": "reached",
        "wrong name": "name",
        "wrong port": "port",
        "wrong password": "password",
        "no password": "password",
    }
    assert len({each["means"] for each in told.values()}) == 5
    assert "WRONGPASS" in told["wrong password"]["said"]
    assert "NOAUTH" in told["no password"]["said"]


def test_the_run_failed_for_the_task_without_retries(ran):
    """Of all tasks only that one failed, and the watcher that carries it to the run."""
    assert sorted(ti.task_id for ti in ran.instances if ti.state == "failed") == ["crash_for_good", "watcher"]
