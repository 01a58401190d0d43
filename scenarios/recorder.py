"""Writes down what the checks find, as they find it, and gives each its verdict."""

from __future__ import annotations

import inspect
import os
import platform
import re
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import reduce
from pathlib import Path
from typing import Any

import psutil
import pytest

from labs.airflow import Airflow, AirflowError
from labs.errors import Interrupted, LabError
from labs.paths import PROJECT_ROOT
from labs.results import Claim, Kind, Result, Results, Verdict, secrets_of, undecided, worst
from labs.runs import FINISHED_TASK, Run, TaskInstance
from labs.service_logs import ServiceLog, service_logs

LOG_LINES = 40
PENDING = "had not started when the verification ended"
UNDER_WAY = "was under way when the verification ended"


@dataclass
class Findings:
    """What one check has found so far.

    Attributes:
        phases: verdict and message of each phase that has ended: set-up, call, teardown.
    """

    result: Result
    evidence: list[tuple[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    runs: dict[str, tuple[Airflow, Run, list[TaskInstance]]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    phases: list[tuple[Verdict, str]] = field(default_factory=list)
    seconds: float = 0.0

    def add_run(self, airflow: Airflow, run: Run) -> list[TaskInstance]:
        instances = every_try(airflow, run)
        self.runs[run.run_id] = (airflow, run, instances)
        return instances

    def refresh(self) -> None:
        """Read the runs again that were not at their end when they were recorded."""
        for airflow, run, instances in list(self.runs.values()):
            if any(ti.state not in FINISHED_TASK for ti in instances):
                try:
                    self.add_run(airflow, run)
                except AirflowError as error:
                    self.evidence.append((f"end of run {run.run_id}", f"could not be read: {error}"))

    def so_far(self, *, ended: bool = False) -> Result:
        """The check as it stands: it has passed only when every phase has ended, and passed."""
        verdict, message = self.result.verdict, self.result.message
        if self.phases:
            verdict = reduce(worst, (v for v, _ in self.phases))
            message = "\n".join(text for _, text in self.phases if text)
            if verdict == "passed" and not ended:
                verdict, message = "unknown", UNDER_WAY
        return undecided(
            replace(
                self.result,
                verdict=verdict,
                message=message,
                seconds=round(self.seconds, 2),
                evidence=tuple(self.evidence),
                claims=tuple(self.claims),
                runs=tuple(ti for _, _, instances in self.runs.values() for ti in instances),
                logs=self.logs,
            )
        )


class Recorder:
    """Pytest plugin that keeps the results file true at any moment.

    Every collected check is in the file from the start, as *unknown*: a run that is killed never reads as one
    that passed.

    Attributes:
        outputs: of the lab under test, once it is known.
        current: what the check that is under way has found.
    """

    current: Findings

    def __init__(self, config: pytest.Config) -> None:
        option = config.getoption("--results")
        self.path = Path(option).absolute() if option else None
        self.outputs: Mapping[str, Any] = {}
        self.lab = str(config.getoption("--lab"))
        self.started = datetime.now(timezone.utc).astimezone()
        self.results: dict[str, Result] = {}
        self.commit = _commit()

    def so_far(self) -> Results:
        return Results(
            lab=self.lab,
            started=self.started,
            seconds=round((datetime.now(timezone.utc) - self.started).total_seconds(), 1),
            machine={
                "system": f"{platform.system()} {platform.machine()}",
                "cores": str(os.cpu_count()),
                "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
                "commit": self.commit,
            },
            results=tuple(self.results.values()),
        )

    def record(self, *results: Result) -> None:
        self.results.update({result.scenario: result for result in results})
        if self.path:
            self.so_far().save(self.path, secrets_of(self.outputs))

    # -- collection

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.results[report.nodeid] = Result(
                scenario=report.nodeid,
                section="",
                title=Path(report.nodeid).stem,
                check="the module can be imported",
                dag="",
                kind="dag",
                verdict="unknown",
                message=f"the checks of {report.nodeid} could not be collected",
                logs={"check": report.longreprtext},
            )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            item.stash[FINDINGS] = Findings(_planned(item))
        self.record(*(item.stash[FINDINGS].so_far() for item in session.items))

    # -- checks

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        findings = item.stash[FINDINGS]
        findings.result = replace(findings.result, message=UNDER_WAY)
        self.current = findings
        self.record(findings.so_far())
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        findings = item.stash[FINDINGS]
        verdict, message = _verdict(report, call)
        findings.phases.append((verdict, message))
        findings.seconds += report.duration
        if verdict in ("failed", "unknown"):  # before teardown takes away what explains it
            findings.logs["check"] = report.longreprtext
            findings.logs.update(_service_logs(self.outputs))
        if report.when == "call" or verdict != "passed":
            findings.refresh()
        self.record(findings.so_far(ended=report.when == "teardown"))
        if call.excinfo and isinstance(call.excinfo.value, Interrupted):  # by a signal that an `up` of its own took
            item.session.shouldstop = "interrupted"
        report.verdict = verdict  # type: ignore[attr-defined]
        return report

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        verdict = getattr(report, "verdict", "")
        if verdict == "unknown":  # pytest prints the tracebacks of what it counts as an error
            return "error", "?", "UNKNOWN"
        if verdict == "not applicable":
            return verdict, "-", "NOT APPLICABLE"
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.record()
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = int(self.so_far().exit_code())


FINDINGS = pytest.StashKey[Findings]()
RECORDER = pytest.StashKey[Recorder]()


def every_try(airflow: Airflow, run: Run) -> list[TaskInstance]:
    """All tries of all task instances of a run."""
    return [each for ti in airflow.task_instances(run) for each in (airflow.tries(ti) if ti.try_number > 1 else [ti])]


def dag_of(module: Path) -> str:
    """The DAG that a module verifies: `35_02_01_…` for `test_35_02_01_….py`, "" for any other name."""
    match = re.fullmatch(r"test_(\d\d_\d\d_\d\d_\w+)", module.stem)
    return match[1] if match else ""


def _planned(item: pytest.Item) -> Result:
    module = item.getparent(pytest.Module)
    module_text = inspect.cleandoc((module.obj.__doc__ if module else "") or "")
    text = inspect.cleandoc(getattr(item, "obj", None).__doc__ or "")
    dag = dag_of(item.path)
    section = re.match(r"(\d+)_(\d+)_", dag)
    kinds: dict[str, Kind] = {"claims": "claim", "faults": "fault"}
    return Result(
        scenario=item.nodeid,
        section=f"{int(section[1])}.{int(section[2])}" if section else "",
        title=module_text.split("\n")[0] or item.path.stem,
        check=text.split("\n")[0] or item.name.removeprefix("test_").replace("_", " "),
        dag=dag,
        kind=kinds.get(item.path.parent.name, "dag"),
        verdict="unknown",
        message=PENDING,
        hint=_hint(text) or _hint(module_text),
    )


def _hint(docstring: str) -> str:
    match = re.search(r"^Hint:\s*(.+?)(?:\n\s*\n|\Z)", docstring, re.MULTILINE | re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def _verdict(report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[Verdict, str]:
    if hasattr(report, "wasxfail"):
        return "unknown", "an expected failure shows nothing; judge what is really the case instead"
    if call.excinfo is None:
        return "passed", ""
    error = call.excinfo.value
    if isinstance(error, pytest.skip.Exception):
        return "not applicable", str(error)
    if isinstance(error, (AssertionError, pytest.fail.Exception)):
        return "failed", _without_introspection(str(error)) or "an assertion without words"
    return "unknown", f"the check crashed with {type(error).__name__}: {error}"


def _without_introspection(message: str) -> str:
    """An assertion's message without pytest's "+ where" lines: they stay in the traceback."""
    return "\n".join(line for line in message.splitlines() if not line.lstrip().startswith("+ "))


def _service_logs(outputs: Mapping[str, Any]) -> dict[str, str]:
    return {name: _tail(log) for name, log in service_logs(outputs).items()}


def _tail(log: ServiceLog) -> str:
    try:
        lines = log.read().splitlines()
    except (OSError, LabError) as error:
        return f"(no log: {error})"
    return "\n".join(lines[-LOG_LINES:])


def _commit() -> str:
    """The commit of this checkout, marked where its files differ; "" where git does not tell."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
