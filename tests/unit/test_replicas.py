"""What is judged of several replicas: their heartbeats, their shares of the work, what is configured before them."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from components import load_balancer, pgbouncer
from labs.airflow import AirflowError
from labs.runs import Run
from scenarios.claims import test_two_schedulers as two_schedulers
from scenarios.dispatching import adopted_tasks, sent_tasks
from scenarios.replicas import Replicas

NOON = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
SINCE = NOON.timestamp() - 1
RUN = Run("probe_executions", "lab__1", "success")


class Airflow:
    """Answers with the jobs of a role, the latest first."""

    client: Any = SimpleNamespace(configuration=None)

    def __init__(self, jobs: dict[str, list[Any]]) -> None:
        self.jobs = jobs

    def call(self, _request: Any, *, job_type: str, **_arguments: Any) -> Any:
        return SimpleNamespace(jobs=self.jobs.get(job_type, []))


def job(hostname: str, number: int, state: str = "running", heartbeat: datetime = NOON) -> Any:
    times = {"latest_heartbeat": heartbeat, "start_date": NOON}
    return SimpleNamespace(hostname=hostname, id=number, state=state, **times)


def replicas(schedulers: list[Any], names: tuple[str, ...] = ("scheduler-1", "scheduler-2")) -> Replicas:
    others = {"DagProcessorJob": [job("dag-processor", 8)], "TriggererJob": [job("triggerer", 9)]}
    services = {"scheduler": names, "dag-processor": ("dag-processor",), "triggerer": ("triggerer",)}
    outputs = {role: [{"name": name} for name in each] for role, each in services.items()}
    return Replicas(Airflow({"SchedulerJob": schedulers, **others}), outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedulers", "words"),
    [
        ([job("scheduler-1", 2), job("scheduler-2", 1)], ""),
        ([job("scheduler-1", 2)], "scheduler-2 has sent no heartbeat since"),
        ([job("scheduler-1", 2), job("scheduler-2", 1, heartbeat=NOON.replace(hour=11))], "scheduler-2 has sent no"),
        ([job("scheduler-1", 3, "failed"), job("scheduler-2", 2), job("scheduler-1", 1)], "scheduler-1 is failed"),
    ],
)
def test_each_replica_must_have_sent_a_heartbeat(schedulers: list[Any], words: str) -> None:
    said = replicas(schedulers).unwell(SINCE)
    assert words in said
    assert bool(said) == bool(words)


def test_of_single_services_the_health_endpoint_says_it_all() -> None:
    assert replicas([], names=("scheduler",)).unwell(SINCE) == ""


def test_an_airflow_that_gives_no_answer_is_unwell() -> None:
    seen = replicas([])

    def silent(*_: Any, **__: Any) -> Any:
        raise AirflowError("Airflow gave no answer", 0)

    seen._airflow.call = silent  # type: ignore[method-assign]
    assert seen.unwell(SINCE) == "Airflow gave no answer"


def test_the_log_says_which_tasks_a_scheduler_adopted() -> None:
    log = (
        "2026-11-21T12:00:00Z [info     ] Adopted the following 2 tasks from a dead executor\n"
        "\t<TaskInstance: probe_executions.work_1 lab__1 [running] ti_id=01> in state STARTED\n"
        "\t<TaskInstance: probe_executions.work_2 lab__2 [queued] ti_id=02> in state PENDING loc=x.py:1\n"
        "2026-11-21T12:00:01Z <TaskInstance: probe_executions.work_3 lab__1 [running] ti_id=03>\n"
    )
    assert adopted_tasks(log, RUN) == {"work_1"}
    assert not adopted_tasks(log.partition("\t<TaskInstance: probe_executions.work_2")[0], RUN)  # half of it is read


def test_the_log_says_which_tasks_a_scheduler_sent() -> None:
    log = (
        "2026-11-21T12:00:00Z Setting external_executor_id for <TaskInstance: probe_executions.work_1 lab__1 "
        "[queued] ti_id=01> to 3072bc46 loc=x.py:1\n"
        "2026-11-21T12:00:00Z Setting external_executor_id for <TaskInstance: probe_executions.work_2 lab__2 "
        "[queued] ti_id=02> to 3072bc47 loc=x.py:1\n"
    )
    assert sent_tasks(log, RUN) == {"work_1"}


@pytest.mark.parametrize(
    ("both", "one", "verdicts"), [(33, 30, "holds holds"), (45, 30, "wrong holds"), (60, 30, "wrong wrong")]
)
def test_the_verdicts_on_speed_follow_the_ratio(
    monkeypatch: pytest.MonkeyPatch, both: float, one: float, verdicts: str
) -> None:
    rates, found = iter([both, one]), []
    monkeypatch.setattr(two_schedulers, "_chains", lambda _airflow: next(rates))
    two_schedulers.test_scheduling_alone(
        None,
        SimpleNamespace(lost=lambda _name: nullcontext()),
        None,
        SimpleNamespace(names={"scheduler": ["scheduler-1"]}),
        lambda _label, _value: None,
        lambda _statement, _source, verdict, _numbers: found.append(verdict),
    )
    assert " ".join(found) == verdicts


def test_the_load_balancer_knows_every_server_and_asks_for_its_health() -> None:
    text = load_balancer._settings("127.0.0.1:1", {"api-server-1": "127.0.0.1:2", "api-server-2": "127.0.0.1:3"})
    for line in ("bind 127.0.0.1:1", "server api-server-1 127.0.0.1:2", "server api-server-2 127.0.0.1:3"):
        assert f"    {line}\n" in text
    assert "option httpchk GET /api/v2/version" in text
    assert "resolvers" not in text


def test_the_load_balancer_asks_for_names_again_where_addresses_are_names() -> None:
    text = load_balancer._settings("0.0.0.0:1", {"api-server-1": "api-server-1:8080"})
    assert " resolvers names\n" in text and "\nresolvers names\n    parse-resolv-conf\n" in text


def test_the_pool_has_sessions_for_the_driver_that_needs_them() -> None:
    given = {"host": "h", "port": "5", "listen_addr": "l", "listen_port": "6", "auth_file": "/users"}
    lines = pgbouncer._settings(given).splitlines()
    assert "airflow = host=h port=5 dbname=airflow" in lines
    assert "airflow_sessions = host=h port=5 dbname=airflow pool_mode=session" in lines
    assert "pool_mode = transaction" in lines
