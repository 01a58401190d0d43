"""Probe DAGs in a running lab, and what their tasks left on the executing side."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from airflow_client.client import DAGApi, DagRunApi, DagRunMutableStates, DAGRunPatchBody

from labs.airflow import Airflow, AirflowError
from labs.runs import FINISHED_RUN, Run
from labs.waiting import until

PROBES = Path(__file__).parent / "probes"

REPORT_FAILED = re.compile(r"this is the 1st time calling it|failed_heartbeats=1\b")
"""What LocalExecutor's workers log when the API server does not take a task's report, and is asked again or not."""


@contextmanager
def deployed(airflow: Airflow, dags: Path, folder: Path = PROBES, tag: str = "probe") -> Iterator[frozenset[str]]:
    """A folder of DAGs, copied into a running lab's DAG folder; gives the ids of its DAGs.

    On the way out the copy is taken away, and Airflow forgets the DAGs with their runs. What a verification that
    was killed left of them is ended first: its tasks would hold slots.

    Args:
        dags: the lab's DAG folder.
        tag: of all these DAGs, and of no other.

    Raises:
        AirflowError: a file cannot be imported; the message holds Airflow's own.
        WaitTimeout: the DAGs did not appear, or did not go.
    """
    files = {f"{folder.name}/{file.name}" for file in folder.glob("*.py")}
    copy, away = dags / folder.name, dags.parent / f"{folder.name}.copy"  # a link would lead nowhere in a container

    def put(there: bool) -> None:
        """Whole or not at all: files are parsed meanwhile."""
        shutil.rmtree(away, ignore_errors=True)
        if copy.is_symlink():
            copy.unlink()
        elif copy.exists():
            copy.rename(away)
            shutil.rmtree(away)
        if there:
            shutil.copytree(folder, away, ignore=shutil.ignore_patterns("__pycache__"))
            away.chmod(0o755)
            away.rename(copy)

    def known(*, stale: bool = False) -> dict[str, str]:
        found: dict[str, str] = {}
        api = DAGApi(airflow.client)
        while True:
            page = airflow.call(
                api.get_dags, tags=[tag], exclude_stale=not stale, limit=100, offset=len(found), order_by=["dag_id"]
            ).dags
            found |= {dag.dag_id: dag.relative_fileloc or "" for dag in page}
            if len(page) < 100:
                return found

    def parsed() -> tuple[frozenset[str] | None, str]:
        for failure in airflow.import_errors():
            if any(failure.file.endswith(file) for file in files):
                raise AirflowError(f"Airflow cannot import {failure.file}:\n{failure.stack_trace}", 404)
        there = known()
        missing = files - set(there.values())
        return (None if missing else frozenset(there)), f"no DAG yet of {', '.join(sorted(missing))}"

    def unparsed() -> tuple[bool | None, str]:
        there = known()
        return (None if there else True), f"{len(there)} still there"

    def end_runs() -> None:
        api, own = DagRunApi(airflow.client), known(stale=True)
        for run in airflow.call(api.get_dag_runs, dag_id="~", state=["queued", "running"], limit=100).dag_runs:
            if run.dag_id in own:
                ended(airflow, Run(run.dag_id, run.dag_run_id, run.state.value))

    end_runs()
    put(True)
    try:
        yield until(parsed, what=f"the DAGs of {folder.name} to be parsed", timeout=60, interval=0.5)
    finally:
        put(False)
        # only when the DAG processor has seen the folder gone will it not bring back what is deleted
        until(unparsed, what=f"the DAGs of {folder.name} to go", timeout=60, interval=0.5)
        end_runs()
        for dag_id in known(stale=True):
            airflow.call(DAGApi(airflow.client).delete_dag, dag_id=dag_id)
        assert not known(stale=True), f"Airflow still knows DAGs of {folder.name}: {', '.join(known(stale=True))}"


@dataclass(frozen=True)
class Execution:
    """One execution of a task, as the process that executed it wrote it down.

    Attributes:
        try_number: the try for which Airflow had started it.
        service: in which it was executed; `pid` and `worker`, its parent process, are as that one knows them.
        started: epoch seconds; `ended` is None for one that has not come to its end.
    """

    task: str
    try_number: int
    service: str
    pid: int
    worker: int
    started: float
    ended: float | None


@dataclass(frozen=True)
class Executing:
    """What runs a lab's tasks that name neither executor nor queue.

    Attributes:
        services: in whose logs the reports of running tasks are.
        slots: how many of them run at once, on all services together.
    """

    services: tuple[str, ...]
    slots: int


@dataclass(frozen=True)
class ProbeRun:
    """A run of a probe DAG whose tasks last until `release`.

    Attributes:
        folder: where its tasks leave their files.
        find: the process of this machine that a service knows by a pid.
    """

    airflow: Airflow
    run: Run
    folder: Path
    find: Callable[[str, int], psutil.Process]

    def executions(self) -> list[Execution]:
        """What has been executed so far, in the order of the starts."""
        rows = [json.loads(file.read_text()) for file in self.folder.glob("*.json")]
        found = [
            Execution(row["task"], row["try"], row["service"], row["pid"], row["worker"], row["started"], row["ended"])
            for row in rows
        ]
        return sorted(found, key=lambda execution: execution.started)

    def account(self) -> list[dict[str, Any]]:
        """What Airflow says of each task, beside what the executing side says: rows for the report."""
        started = Counter(execution.task for execution in self.executions())
        completed = Counter(execution.task for execution in self.executions() if execution.ended)
        return [
            {
                "task": ti.task_id,
                "state": ti.state,
                "tries": ti.try_number,
                "executions started": started[ti.task_id],
                "completed": completed[ti.task_id],
            }
            for ti in self.airflow.task_instances(self.run)
        ]

    def outcome(self) -> dict[str, tuple[str | None, int, int, int]]:
        """The same without names: task → state, tries, executions started and completed."""
        return {task: (*rest,) for task, *rest in (row.values() for row in self.account())}

    def wait_for_executions(self, count: int, timeout: float = 30.0) -> list[Execution]:
        """Wait until so many executions have started."""

        def probe() -> tuple[list[Execution] | None, str]:
            found = self.executions()
            return (found if len(found) >= count else None), f"{len(found)} of {count} started"

        return until(
            probe,
            what=f"{count} tasks of {self.run.dag_id} to be executed",
            timeout=timeout,
            detail=lambda: self.airflow.explain(self.run),
        )

    def wait_for_full_slots(self, slots: int) -> list[Execution]:
        """Wait until `slots` tasks are executed, Airflow says so too, and all others are queued."""
        found = self.wait_for_executions(slots)

        def probe() -> tuple[bool | None, str]:
            states = Counter(ti.state for ti in self.airflow.task_instances(self.run))
            settled = states["running"] == slots and states["queued"] == states.total() - slots > 0
            return (settled or None), ", ".join(f"{count} {state}" for state, count in states.items())

        until(probe, what=f"{slots} tasks of {self.run.dag_id} to run and the others to be queued", timeout=30)
        return found

    def process(self, execution: Execution) -> psutil.Process:
        """The process of this machine that executes a task.

        Raises:
            NoSuchProcess: it has ended.
        """
        return self.find(execution.service, execution.pid)

    def lives(self, execution: Execution) -> bool:
        """Whether the process of an execution is there."""
        try:
            return self.process(execution).is_running()
        except psutil.NoSuchProcess:
            return False

    def unended(self) -> list[Execution]:
        """The executions that have not come to their end, whether their process lives or not."""
        return [each for each in self.executions() if not each.ended]

    def going_on(self) -> list[str]:
        """The tasks of those whose process lives."""
        return [each.task for each in self.unended() if self.lives(each)]

    def release(self, service: str = "") -> None:
        """Let every execution come to its end, or every one in a service."""
        (self.folder / (f"release-{service}" if service else "release")).touch()


def reports_fail(said: Callable[[], str], tasks: int) -> float:
    """Wait until the reports of so many running tasks have failed, says what the scheduler's log `said`; when."""

    def probe() -> tuple[float | None, str]:
        failed = len(REPORT_FAILED.findall(said()))
        return (time.time() if failed >= tasks else None), f"{failed} failed"

    return until(probe, what=f"the reports of {tasks} running tasks to fail", timeout=30, interval=0.1)


@contextmanager
def exchange_folder(outputs: Mapping[str, Any]) -> Iterator[Path]:
    """A folder that tasks and this machine see under the same path, gone afterwards."""
    # not tmp_path, which other users cannot walk to and containers do not have
    with tempfile.TemporaryDirectory(dir=outputs["paths"]["exchange"]) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextmanager
def probe_runs(
    airflow: Airflow, folder: Path, find: Callable[[str, int], psutil.Process]
) -> Iterator[Callable[..., ProbeRun]]:
    """Gives `start(dag_id, conf=None)`; on the way out no run of it, and no task of those, goes on."""
    started: list[ProbeRun] = []

    def start(dag_id: str, conf: Mapping[str, Any] | None = None) -> ProbeRun:
        own = folder / f"run{len(started)}"
        own.mkdir()
        own.chmod(0o777)  # a site runs its tasks as a user of its own
        run = airflow.trigger(dag_id, {"folder": str(own), **(conf or {})})
        started.append(ProbeRun(airflow, run, own, find))
        return started[-1]

    try:
        yield start
    finally:
        for probe in started:
            probe.release()
        for probe in started:
            ended(airflow, probe.run)


def ended(airflow: Airflow, run: Run) -> None:
    """Fail a run that has not ended, and wait until none of its tasks goes on."""
    if airflow.run(run).state not in FINISHED_RUN:
        airflow.call(
            DagRunApi(airflow.client).patch_dag_run,
            dag_id=run.dag_id,
            dag_run_id=run.run_id,
            dag_run_patch_body=DAGRunPatchBody(state=DagRunMutableStates.FAILED),
            update_mask=["state"],
        )

    def idle() -> tuple[bool | None, str]:
        going = [ti.label for ti in airflow.task_instances(run) if ti.state in ("queued", "running")]
        return (None if going else True), f"{', '.join(going)} going on"

    until(idle, what=f"the tasks of run {run.run_id} to end", timeout=60, interval=0.3)
