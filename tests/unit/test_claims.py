"""The verdicts on what the seeds say: each comes out differently when what was measured is different."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
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
from scenarios.claims import test_two_schedulers as two_schedulers
from scenarios.dispatching import EightTasks, Look, executor_events, queued_tasks
from scenarios.faults import test_one_worker_lost as one_worker_lost
from scenarios.machine import Connection
from scenarios.probing import Executing, Execution
from scenarios.replicas import Job
from scenarios.seeds import CELERY_KUBERNETES, EDGE_BY_PATH, EXECUTORS, OPTIONS

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


def test_the_loader(judged: Judged) -> None:
    def found(**different: Any) -> set[str]:
        local_and_celery = {
            "loads": ["LocalExecutor", "CeleryExecutor"],
            "imports": ["celery_executor", "local_executor"],
        }
        executors = {
            "LocalExecutor,CeleryExecutor": {**local_and_celery, **different},
            EDGE_BY_PATH: {"loads": ["EdgeExecutor"], "imports": ["edge_executor"]},
            CELERY_KUBERNETES: {"error": "RuntimeError"},
        }
        return set(judged(dispatch.test_what_the_loader_loads, installed={"executors": executors}).values())

    assert found() == {"holds"}
    assert found(loads=["LocalExecutor"]) == {"wrong"}
    assert found(imports=["celery_executor", "kubernetes_executor", "local_executor"]) == {"wrong"}


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
    def found(*depths: int, active: int = 2) -> list[str]:
        left = list(depths)
        outcome = {"work_1": ("success", 1, 1, 1)}
        probe = SimpleNamespace(
            run=RUN, wait_for_full_slots=lambda slots: [], release=lambda: None, outcome=lambda: outcome
        )
        verdicts = judged(
            celery_executor.test_all_workers_busy,
            airflow=SimpleNamespace(task_instances=lambda run: [None] * 8, wait=lambda run: RUN),
            celery=SimpleNamespace(
                waiting=lambda name: {name: left.pop(0)}, control=lambda worker, command: [{}] * active
            ),
            executing=Executing(("default-1",), 2),
            start_probe=lambda dag_id: probe,
        )
        return list(verdicts.values())

    assert found(0, 6, 14, 0) == ["holds", "holds"]
    assert found(0, 4, 12, 0) == ["wrong", "wrong"]
    assert found(0, 6, 14, 2) == ["wrong", "wrong"]
    assert found(0, 6, 14, 0, active=0) == ["holds", "wrong"]


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


class Pretended:
    """A run of a probe DAG: who executed its tasks, and as which processes."""

    def __init__(self, run: Run = RUN, services: tuple[str, ...] = (), processes: tuple[Any, ...] = ()) -> None:
        self.run, self.processes = run, processes
        self.found = [Execution(f"work_{n}", 1, name, 100 + n, 20 + n, 0.0, 1.0) for n, name in enumerate(services, 1)]

    def executions(self) -> list[Execution]:
        return self.found

    def wait_for_full_slots(self, slots: int) -> list[Execution]:
        return self.found

    def process(self, execution: Execution) -> Any:
        return self.processes[self.found.index(execution)]


def test_tasks_without_a_broker(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(meanwhile: int) -> set[str]:
        probe = Pretended(services=("default-1",) * meanwhile)
        verdicts = judged(
            celery_executor.test_no_broker,
            airflow=SimpleNamespace(task_instances=lambda run: [instance(1, "queued")], wait=lambda run: RUN),
            celery=SimpleNamespace(wait_until_idle=lambda worker: None),
            faults=SimpleNamespace(stopped=lambda service: nullcontext()),
            executing=Executing(("default-1",), 2),
            start_probe=lambda dag_id, conf: probe,
        )
        return set(verdicts.values())

    monkeypatch.setattr(celery_executor, "until", lambda probe, **_: None)
    assert found(0) == {"holds"}
    assert found(1) == {"wrong"}


@dataclass(frozen=True)
class Below:
    """A process of a worker's task, below one of its pool."""

    pid: int
    pool: int
    user: int = 0

    def ppid(self) -> int:
        return self.pool

    def uids(self) -> Any:
        return SimpleNamespace(real=self.user)


def test_how_isolated_tasks_of_a_worker_are(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*processes: Below) -> set[str]:
        probe = Pretended(services=("default-1",) * len(processes), processes=processes)
        verdicts = judged(
            celery_executor.test_isolation,
            airflow=None,
            celery=SimpleNamespace(worker=lambda name: SimpleNamespace(pid=10)),
            executing=Executing(("default-1",), 2),
            start_probe=lambda dag_id: probe,
        )
        return set(verdicts.values())

    monkeypatch.setattr(celery_executor, "psutil", SimpleNamespace(Process=lambda pid: Below(pid, 10)))
    monkeypatch.setattr(celery_executor, "Path", lambda name: SimpleNamespace(readlink=lambda: "mnt:[1]"))
    assert found(Below(101, 21), Below(102, 22)) == {"holds"}
    assert found(Below(101, 21), Below(102, 21)) == {"wrong"}
    assert found(Below(101, 21), Below(102, 22, user=1)) == {"wrong"}


def test_where_workers_report_to(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**environment: str) -> set[str]:
        probe = Pretended(services=("default-1",), processes=(Below(101, 21),))
        worker = SimpleNamespace(environ=lambda: environment)
        server = {"name": "metadata-database", "endpoints": {"sql": "127.0.0.1:5432"}}
        verdicts = judged(
            celery_executor.test_workers_report_to_the_database,
            lab=SimpleNamespace(outputs={"services": {"metadata-database": [server]}}),
            celery=SimpleNamespace(worker=lambda name: worker),
            services=SimpleNamespace(host=lambda name: "127.0.0.1"),
            executing=Executing(("default-1",), 1),
            start_probe=lambda dag_id: probe,
        )
        return set(verdicts.values())

    monkeypatch.setattr(celery_executor, "psutil", SimpleNamespace(Process=lambda pid: Below(pid, 20)))
    monkeypatch.setattr(celery_executor, "connections", lambda process: [Connection("127.0.0.1:4000", API)])
    assert found(AIRFLOW__CELERY__RESULT_BACKEND="db+postgresql://there") == {"outdated"}
    assert found(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql://there") == {"holds"}


def test_redundant_brokers(judged: Judged) -> None:
    def found(dead: str, both: str) -> set[str]:
        answer = json.dumps({"one that refuses": dead, "the lab's": "127.0.0.1:6379", "both": both})
        celery = SimpleNamespace(python=lambda *arguments: answer)
        return set(judged(celery_executor.test_redundant_brokers, celery=celery).values())

    assert found("OperationalError", "127.0.0.1:6379") == {"holds"}
    assert found("OperationalError", "OperationalError") == {"wrong"}
    with pytest.raises(AssertionError, match="the address that should refuse connections takes them"):
        found("127.0.0.1:6379", "127.0.0.1:6379")


def at_once(most: int) -> list[TaskInstance]:
    """Twenty-four tasks of a second each, as many of them at once."""
    starts = [NOON + timedelta(seconds=2 + number // most) for number in range(24)]
    usual = instance(1, "success")
    return [replace(usual, started=start, ended=start + timedelta(seconds=1)) for start in starts]


USUAL = {"pool": 4, "capped": 2, "another": 4, "by": ("default-1", "io-1"), "memory": 500}


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("add more workers so", {"another": 2}),
        ("Scalability", {"by": ("default-1",)}),
        ("CeleryExecutor (distributed", {"by": ("default-1",)}),
        ("or increase worker_concurrency", {"pool": 2}),
        ("raise [core] parallelism", {"capped": 4}),
        ("Scenario, tasks fail", {"memory": 300}),
    ],
)
def test_forty_slots(judged: Judged, statement: str, change: dict[str, Any]) -> None:
    def found(pool: int, capped: int, another: int, by: tuple[str, ...], memory: int) -> str:
        usual = ("default-1",)
        seen = [(2, usual, 300), (pool, usual, memory), (capped, usual, memory), (another, by, 300)]
        now: list[Any] = []

        def start(dag_id: str, conf: Any) -> Pretended:
            now[:] = seen.pop(0)
            return Pretended(services=now[1])

        def wait(run: Run, timeout: float, watch: Callable[[Any], None]) -> Run:
            watch([])
            return run

        workers = [{"name": "default-1", "slots": 2}, {"name": "io-1", "slots": 2}]
        verdicts = judged(
            celery_executor.test_forty_slots,
            lab=SimpleNamespace(outputs={"services": {"worker": workers}}, reconfigured=lambda options: nullcontext()),
            airflow=SimpleNamespace(wait=wait, task_instances=lambda run: at_once(now[0])),
            celery=SimpleNamespace(
                waiting=lambda name: {name: 20},
                memory=lambda worker: now[2] * 2**20,
                larger_pool=lambda worker, by: nullcontext(),
                serving=lambda worker, queue: nullcontext(),
            ),
            executing=Executing(("default-1",), 2),
            start_probe=start,
        )
        return next(verdict for said, verdict in verdicts.items() if statement in said)

    assert found(**USUAL) == "holds"
    assert found(**{**USUAL, **change}) == "wrong"


QUEUED = """\
2026-11-21T08:57:{second}.000000Z [info     ] Setting the following tasks to queued state (scheduler job_id=9):
\t<TaskInstance: {dag}.work lab__1 [scheduled] ti_id=01> (id=01, try_number=1) loc=x.py:1
"""


def test_who_schedules(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    dags = [f"probe_fifty_{number}" for number in range(4)]
    names = ["scheduler-1", "scheduler-2"]

    def found(seconds: Mapping[str, list[int]], alone: float = 2.0) -> list[str]:
        """Verdicts by the seconds in which each scheduler queued the next DAG's task, and by the tasks per second."""
        left, rates = list(dags), [2.0, alone]
        logs = ["".join(QUEUED.format(second=s, dag=left.pop(0)) for s in seconds[name]) for name in names]
        runs = [Run(dag, "lab__1", "success") for dag in dags]
        monkeypatch.setattr(two_schedulers, "_one_each", lambda airflow, dags: (runs, rates.pop(0)))
        verdicts = judged(
            two_schedulers.test_both_schedulers_work_at_the_same_time,
            lab=None,
            airflow=None,
            faults=SimpleNamespace(lost=lambda service: nullcontext()),
            probes=frozenset(dags),
            replicas=SimpleNamespace(
                names={"scheduler": names}, jobs=lambda: {name: Job(1, "running", NOON, NOON) for name in names}
            ),
            service_log=lambda role, number: lambda: logs[number],
        )
        return list(verdicts.values())

    together = {"scheduler-1": [20, 23], "scheduler-2": [21, 24]}
    assert found(together) == ["wrong", "wrong"]
    assert found(together, alone=1.0) == ["wrong", "holds"]
    assert found({"scheduler-1": [20, 21, 22, 23], "scheduler-2": []}) == ["holds", "wrong"]
    assert found({"scheduler-1": [20, 21], "scheduler-2": [30, 31]}) == ["holds", "wrong"]


def test_who_takes_the_retry_of_a_lost_worker(judged: Judged) -> None:
    def found(service: str) -> set[str]:
        begun = [
            Execution("sturdy", 1, "zone-a-1", 1, 1, 0.0, None),
            Execution("fragile", 1, "zone-b-1", 2, 2, 0.0, 50.0),
        ]
        executions = [*begun, Execution("sturdy", 2, service, 3, 3, 40.0, 50.0)]
        probe = SimpleNamespace(
            run=RUN,
            executions=lambda: executions,
            wait_for_executions=lambda count, timeout=0.0: executions[:count],
            release=lambda: None,
            account=list,
            outcome=lambda: {"sturdy": ("success", 2, 2, 1), "fragile": ("success", 1, 1, 1)},
        )
        verdicts = judged(
            one_worker_lost.test_another_worker_executes_the_retry,
            lab=SimpleNamespace(outputs={"options": {"scheduler.task_instance_heartbeat_timeout": "30"}}),
            airflow=SimpleNamespace(wait=lambda run: RUN),
            faults=SimpleNamespace(lost=lambda service: nullcontext(SimpleNamespace(at=0.0))),
            start_probe=lambda dag_id: probe,
        )
        return set(verdicts.values())

    assert found("zone-b-1") == {"holds"}
    assert found("zone-a-1") == {"wrong"}
