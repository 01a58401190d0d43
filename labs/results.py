"""What verifiers found: verdicts with the evidence behind them, and what they mean for an exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from labs.errors import ExitCode, LabError
from labs.runs import TaskInstance

Verdict = Literal["passed", "failed", "unknown", "not applicable"]
"""Of a check. A check that crashed, or never ended, is *unknown*; only *passed* is a pass."""

ClaimVerdict = Literal["holds", "outdated", "wrong", "unknown"]
"""Of a statement that others made: true, true once, never true, or not decided."""

Kind = Literal["dag", "claim", "fault"]

FORMAT = 1


@dataclass(frozen=True)
class Claim:
    """A statement of the curriculum or its sources, judged.

    Attributes:
        source: where it is said, such as `seed 003`.
        version: the Airflow version that it was judged on.
        numbers: the measured values that decide it.
    """

    statement: str
    source: str
    verdict: ClaimVerdict
    version: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One check and what it found.

    Attributes:
        scenario: unique name of the check: its path and function.
        section: `35.2`, or "" for a check that belongs to no section.
        title: what the scenario shows; `check` is the one point of it that this check proves.
        dag: name of the DAG file without its ending, "" when there is none.
        evidence: labelled JSON values in the order they were found.
        message: why it did not pass; one sentence first.
        hint: what a reader may look at when it did not pass.
        seconds: how long the check took.
        runs: task instances, every try, for the time line.
        logs: service name to its last log lines, when it did not pass.
    """

    scenario: str
    section: str
    title: str
    check: str
    dag: str
    kind: Kind
    verdict: Verdict
    message: str = ""
    hint: str = ""
    seconds: float = 0.0
    evidence: tuple[tuple[str, Any], ...] = ()
    claims: tuple[Claim, ...] = ()
    runs: tuple[TaskInstance, ...] = ()
    logs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """One verification of one lab.

    Attributes:
        started: local time with its offset.
        seconds: from the first check to the last one so far.
        machine: what it ran on, in words: `cores`, `memory`, `system`, and the checkout's `commit`.
    """

    lab: str
    started: datetime
    seconds: float
    machine: Mapping[str, str]
    results: tuple[Result, ...]

    def exit_code(self) -> ExitCode:
        """OK only when something was proven and nothing was not: *not applicable* proves nothing."""
        verdicts = {r.verdict for r in self.results}
        if "failed" in verdicts:
            return ExitCode.FAILED
        if "unknown" in verdicts or "passed" not in verdicts:
            return ExitCode.NOT_PROVEN
        return ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "lab": self.lab,
            "started": self.started.isoformat(),
            "seconds": self.seconds,
            "machine": dict(self.machine),
            "results": [{**asdict(r), "runs": [ti.to_json() for ti in r.runs]} for r in self.results],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        return cls(
            lab=data["lab"],
            started=datetime.fromisoformat(data["started"]),
            seconds=data["seconds"],
            machine=data["machine"],
            results=tuple(_result(r) for r in data["results"]),
        )

    def save(self, path: Path, secrets: Collection[str] = ()) -> None:
        """Write to `path` in one step, without the secrets: a reader never sees half a file."""
        text = json.dumps(redacted(self.to_json(), secrets), indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            LabError: there is no such file, or it was written by something else.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']}, expected {FORMAT}")
            return cls.from_json(data)
        except FileNotFoundError:
            raise LabError(f"there are no results at {path}; run the scenarios first") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(f"the results at {path} cannot be read ({error}); run the scenarios again") from error


def _result(data: Mapping[str, Any]) -> Result:
    if data["verdict"] not in get_args(Verdict):
        raise ValueError(f"verdict {data['verdict']!r} of {data['scenario']}")
    values = dict(data)
    values["evidence"] = tuple((label, value) for label, value in data["evidence"])
    values["claims"] = tuple(Claim(**claim) for claim in data["claims"])
    values["runs"] = tuple(TaskInstance.from_json(ti) for ti in data["runs"])
    return Result(**values)


def worst(first: Verdict, second: Verdict) -> Verdict:
    """What two phases of one check amount to: a failure stays one, and no pass outweighs a crash."""
    order: tuple[Verdict, ...] = ("failed", "unknown", "not applicable", "passed")
    return min(first, second, key=order.index)


def undecided(result: Result) -> Result:
    """The result with its claims unknown unless it passed: a check that broke decides nothing."""
    if result.verdict == "passed":
        return result
    return replace(result, claims=tuple(replace(c, verdict="unknown") for c in result.claims))


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses and mappings as objects, times as ISO text, sets sorted."""
    if isinstance(value, TaskInstance):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(v) for v in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def secrets_of(outputs: Mapping[str, Any]) -> set[str]:
    """The values among a lab's outputs that no report may show, by the names of their keys."""
    return {
        value
        for key, value in outputs.items()
        if isinstance(value, str) and value and re.search(r"password|secret|token|_key$", key)
    }


_TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s:/@]*:)[^\s@/]+@")


def redacted(value: Any, secrets: Collection[str]) -> Any:
    """JSON data without the given secrets, bearer tokens, and the passwords in URLs."""
    if isinstance(value, str):
        for secret in filter(None, secrets):
            value = value.replace(secret, "•••")
        return _URL_PASSWORD.sub(r"\1•••@", _TOKEN.sub("•••", value))
    if isinstance(value, Mapping):
        return {redacted(k, secrets): redacted(v, secrets) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(v, secrets) for v in value]
    return value
