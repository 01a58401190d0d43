"""The verdicts on what the seeds say: each comes out differently when what was measured is different."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from labs.runs import Run, TaskInstance
from scenarios.claims import test_celery_executor as celery_executor
from scenarios.claims import test_configuration_keys as configuration_keys
from scenarios.claims import test_dispatch as dispatch
from scenarios.claims import test_local_executor as local_executor
from scenarios.claims import test_retired_executors as retired_executors
from scenarios.dispatching import EightTasks, Look, executor_events, queued_tasks
from scenarios.probing import Executing, Execution
from scenarios.seeds import EXECUTORS, OPTIONS

RUN = Run("probe_executions", "lab__2026-11-21T08:57:21__431c7bc2", "success")

LOG = """\
2026-11-21T08:57:22.066000Z [info     ] Setting the following tasks to queued state (scheduler job_id=9):
\t<TaskInstance: probe_executions.work_7 lab__2026-11-21T08:57:21__431c7bc2 [scheduled] ti_id=01> (id=01, try_number=1)
\t<TaskInstance: probe_executions.work_8 lab__2026-11-21T08:57:21__431c7bc2 [scheduled] ti_id=02> (id=02, try_number=1)\
 loc=x.py:1
2026-11-21T08:57:22.067000Z [info     ] Trying to enqueue tasks: \
[<TaskInstance: probe_executions.work_9 lab__2026-11-21T08:57:21__431c7bc2 [scheduled] ti_id=03>]
2026-11-21T08:57:26.102722Z [info     ] TaskInstance Finished: dag_id=probe_executions, task_id=work_8, \
run_id=lab__2026-11-21T08:57:21__431c7bc2, map_index=-1, ti_id=02, run_start_date=2026-11-21 08:57:25.133108+00:00, \
run_end_date=2026-11-21 08:57:25.352026+00:00, run_duration=0.218918, state=running, \
executor=LocalExecutor(parallelism=4), executor_state=success, try_number=1, max_tries=0 [airflow.jobs] loc=x.py:1
2026-11-21T08:57:26.102722Z [info     ] TaskInstance Finished: dag_id=probe_executions, task_id=work_8, \
run_id=another, state=success, executor=LocalExecutor(parallelism=4), executor_state=success
"""


def test_the_log_says_which_tasks_of_a_run_the_scheduler_queued() -> None:
    assert queued_tasks(LOG, RUN) == {"work_7", "work_8"}


def test_the_log_says_what_each_event_carried_and_met() -> None:
    received = datetime(2026, 11, 21, 8, 57, 26, 102722, tzinfo=timezone.utc).timestamp()
    events = {"work_8": {"received": received, "carried": "success", "task instance was": "running"}}
    assert executor_events(LOG, RUN) == events


NOON = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
NAMES = [f"work_{number}" for number in range(1, 9)]
DATABASE, API = "127.0.0.1:28080", "127.0.0.1:28081"


def instance(number: int, state: str) -> TaskInstance:
    started = NOON + timedelta(seconds=2 if number <= 4 else 5)
    return TaskInstance(
        dag_id=RUN.dag_id,
        run_id=RUN.run_id,
        task_id=f"work_{number}",
        map_index=-1,
        try_number=1,
        state=state,
        hostname="scheduler",
        pid=100 + number,
        scheduled=NOON,
        queued=NOON + timedelta(seconds=1),
        started=started,
        ended=started + timedelta(seconds=2),
    )


@pytest.fixture
def seen() -> EightTasks:
    """What a LocalExecutor with four workers shows."""
    quiet = Look((21, 22, 23, 24), {"pipe:[1]": 0, "pipe:[2]": 0}, frozenset({DATABASE}), ())
    return EightTasks(
        run=RUN,
        slots=4,
        scheduler=10,
        idle=quiet,
        full=replace(quiet, waiting={"pipe:[1]": 5756, "pipe:[2]": 0}, workers_to=(API, API, API, API)),
        ended=quiet,
        during=[instance(number, "running" if number <= 4 else "queued") for number in range(1, 9)],
        after=[instance(number, "success") for number in range(1, 9)],
        executions=[
            Execution(f"work_{n}", 1, "scheduler", 100 + n, 20 + n, NOON.timestamp(), None) for n in range(1, 5)
        ],
        queued=frozenset(NAMES),
        ancestors={f"work_{n}": (20 + n, 10) for n in range(1, 5)},
        events={
            name: {"received": NOON.timestamp() + 9, "carried": "success", "task instance was": "success"}
            for name in NAMES
        },
    )


Judged = Callable[..., dict[str, str]]


@pytest.fixture
def judged() -> Judged:
    """`judged(check, **fixtures)`: run a check; the verdicts by the beginning of their statements."""

    def judged(check: Callable[..., None], **fixtures: Any) -> dict[str, str]:
        verdicts = {}

        def claim(statement: str, source: str, verdict: str, numbers: Mapping[str, Any]) -> None:
            verdicts[statement] = verdict

        check(**fixtures, evidence=lambda label, value: None, claim=claim)
        return verdicts

    return judged


def test_tasks_in_subprocesses(judged: Judged, seen: EightTasks) -> None:
    check = local_executor.test_tasks_run_in_subprocesses_on_the_same_machine
    in_one_process = [replace(execution, pid=99) for execution in seen.executions]
    elsewhere = [seen.during[0], *(replace(ti, hostname="other") for ti in seen.during[1:])]
    below_another = {name: (worker, 11) for name, (worker, _) in seen.ancestors.items()}
    assert set(judged(check, eight_tasks=seen).values()) == {"holds"}
    for different in (
        replace(seen, executions=in_one_process),
        replace(seen, during=elsewhere),
        replace(seen, ancestors=below_another),
    ):
        assert set(judged(check, eight_tasks=different).values()) == {"wrong"}


def test_the_queue(judged: Judged, seen: EightTasks) -> None:
    check = local_executor.test_the_queue_is_in_memory_not_in_the_database
    empty = {"pipe:[1]": 0, "pipe:[2]": 0}
    in_database = replace(seen.full, waiting=empty, workers_to=(DATABASE, API))
    assert set(judged(check, eight_tasks=seen).values()) == {"wrong"}
    assert set(judged(check, eight_tasks=replace(seen, full=in_database)).values()) == {"holds"}
    with pytest.raises(AssertionError, match="it cannot be told where the queue is"):
        judged(check, eight_tasks=replace(seen, full=replace(seen.full, waiting=empty)))
    with pytest.raises(AssertionError, match="no task was queued"):
        judged(check, eight_tasks=replace(seen, during=seen.during[:4]))


def test_parallelism(judged: Judged, seen: EightTasks) -> None:
    check = local_executor.test_parallelism_is_the_number_of_worker_processes
    more = replace(seen, full=replace(seen.full, workers=(21, 22, 23, 24, 25)))
    at_once = replace(seen, after=[replace(ti, started=NOON) for ti in seen.after])
    assert set(judged(check, eight_tasks=seen).values()) == {"holds"}
    assert set(judged(check, eight_tasks=more).values()) == {"wrong"}
    assert set(judged(check, eight_tasks=at_once).values()) == {"wrong"}


@pytest.mark.parametrize(
    ("statement", "usual", "change", "verdict"),
    [
        ("Scheduler marks", "holds", {"queued": frozenset(NAMES[:7])}, "wrong"),
        ("Executor picks up", "outdated", {"full": Look((), {}, frozenset(), ())}, "holds"),
        ("Executor launches", "holds", {"executions": []}, "wrong"),
        ("Executor monitors", "holds", {"carried": "failed"}, "wrong"),
        ("Scheduler updates", "outdated", {"task instance was": "running"}, "holds"),
    ],
)
def test_the_flow(
    judged: Judged, seen: EightTasks, statement: str, usual: str, change: dict[str, Any], verdict: str
) -> None:
    def of(observed: EightTasks) -> str:
        found = judged(dispatch.test_the_flow_of_a_task, eight_tasks=observed)
        return next(v for s, v in found.items() if s.startswith(statement))

    fields = {key: value for key, value in change.items() if hasattr(seen, key)}
    event = {key: value for key, value in change.items() if not hasattr(seen, key)}
    events = {**seen.events, "work_3": {**seen.events["work_3"], **event}}
    assert of(seen) == usual
    assert of(replace(seen, **{"events": events, **fields})) == verdict


def test_the_interface(judged: Judged) -> None:
    check = dispatch.test_the_interface_between_scheduler_and_executor
    airflow_3 = {
        "methods": ["heartbeat", "queue_workload", "sync", "trigger_tasks"],
        "queue_workload takes": ["self", "workload"],
        "heartbeat calls": ["trigger_tasks", "sync"],
        "the scheduler's loop calls": ["heartbeat"],
        "has event_buffer": True,
    }
    airflow_2 = {**airflow_3, "methods": ["execute_async", *airflow_3["methods"]]}  # type: ignore[misc]
    assert list(judged(check, installed={"contract": airflow_3}).values()) == ["outdated", "holds", "holds"]
    assert list(judged(check, installed={"contract": airflow_2}).values()) == ["holds", "holds", "holds"]
    for key, value in (("has event_buffer", False), ("heartbeat calls", ["sync"]), ("the scheduler's loop calls", [])):
        assert "outdated" in list(judged(check, installed={"contract": {**airflow_2, key: value}}).values())


def test_the_executors_that_are_gone(judged: Judged) -> None:
    loads = {name: {"loads": [name]} for name in EXECUTORS}
    loads["LocalExecutor,CeleryExecutor"] = {"loads": ["LocalExecutor", "CeleryExecutor"]}
    gone = {name: {"error": "gone"} for name in loads}
    for check in (retired_executors.test_sequential_executor, retired_executors.test_celery_kubernetes_executor):
        then = {"executors": loads, "default executor": "SequentialExecutor"}
        now = {"executors": gone, "default executor": "LocalExecutor"}
        assert set(judged(check, installed=then).values()) == {"holds"}
        assert "holds" not in judged(check, installed=now).values()


def test_the_options(judged: Judged) -> None:
    def found(where: Callable[[str], list[str]]) -> dict[str, str]:
        rows = [
            {"section": section, "key": key, "found in": where(section), "what Airflow says of it": ""}
            for section, key, _ in OPTIONS
        ]
        return judged(configuration_keys.test_the_options_that_the_seeds_name, installed={"options": rows})

    assert set(found(lambda section: [section]).values()) == {"holds"}
    assert set(found(lambda section: ["elsewhere"]).values()) == {"outdated"}
    assert len(found(lambda section: [])) == len(OPTIONS)


def test_sla(judged: Judged) -> None:
    check = configuration_keys.test_sla_misses
    assert set(judged(check, installed={"sla": ""}).values()) == {"holds"}
    assert set(judged(check, installed={"sla": "The SLA feature is removed"}).values()) == {"outdated"}


def test_where_tasks_wait_when_all_workers_are_busy(judged: Judged) -> None:
    def found(*depths: int) -> set[str]:
        left = list(depths)
        outcome = {"work_1": ("success", 1, 1, 1)}
        probe = SimpleNamespace(
            run=RUN, wait_for_full_slots=lambda slots: [], release=lambda: None, outcome=lambda: outcome
        )
        verdicts = judged(
            celery_executor.test_all_workers_busy,
            airflow=SimpleNamespace(task_instances=lambda run: [None] * 8, wait=lambda run: RUN),
            celery=SimpleNamespace(waiting=lambda name: {name: left.pop(0)}),
            executing=Executing(("default-1",), 2),
            start_probe=lambda dag_id: probe,
        )
        return set(verdicts.values())

    assert found(0, 6, 14, 0) == {"holds"}
    assert found(0, 4, 12, 0) == {"wrong"}
    assert found(0, 6, 14, 2) == {"wrong"}


def test_what_a_worker_without_the_package_does(judged: Judged) -> None:
    def found(lacking: str) -> set[str]:
        instances = [
            replace(instance(1, "success"), task_id="has_it"),
            replace(instance(2, lacking), task_id="lacks_it"),
        ]
        verdicts = judged(
            celery_executor.test_a_worker_with_other_packages,
            airflow=SimpleNamespace(task_instances=lambda run: instances, log=lambda ti, number: "no only_elsewhere"),
            start_probe=lambda dag_id: SimpleNamespace(run=RUN),
        )
        return set(verdicts.values())

    assert found("up_for_reschedule") == {"holds"}
    assert found("success") == {"wrong"}
