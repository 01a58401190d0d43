"""The same scenarios on several labs, side by side: their verdicts, why they differ, and what the DAGs computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

from labs.results import Result, Results, Verdict

RESULT = "result"
"""Label of the evidence that is the same wherever a DAG runs: what it computed."""


TELLING: tuple[Verdict, ...] = ("failed", "unknown", "passed", "not applicable")
"""Which verdict of several checks stands for all of them: what is not applicable takes nothing from a pass."""

Agreement = Literal[Verdict, "differs", "alone"]
"""The one verdict that a check has on every lab, that it has several, or that one lab alone has the check."""


@dataclass(frozen=True)
class Reason:
    """Why a check did not pass on a lab and has another verdict elsewhere, in the words of that lab's report."""

    lab: str
    verdict: Verdict
    why: str

    def __str__(self) -> str:
        return f"{self.verdict} on {self.lab}: {self.why}"


@dataclass(frozen=True)
class Row:
    """One scenario on each of the labs.

    Attributes:
        section: `35.2`, "" for a claim or a fault.
        name: of the scenario's file, without `test_`.
        verdicts: lab → *failed* or *unknown* when any check is, else *passed* when any check is; labs that do not serve
            the section are left out.
        counts: lab → how many of its checks passed, and how many there are.
        results: lab → what the DAG computed there, from the evidence labelled `RESULT`.
        agreement: how many checks have the same verdict everywhere, by verdict, and how many have not.
        reasons: for checks whose verdicts differ: the check, and why it did not pass.
    """

    section: str
    name: str
    title: str
    verdicts: Mapping[str, Verdict]
    counts: Mapping[str, tuple[int, int]]
    results: Mapping[str, Any]
    agreement: Mapping[Agreement, int]
    reasons: tuple[tuple[str, Reason], ...]

    @property
    def same(self) -> bool | None:
        """Whether the DAG computed the same everywhere; None where fewer than two labs say what it computed."""
        found = list(self.results.values())
        return all(value == found[0] for value in found) if len(found) > 1 else None


def compare(labs: Mapping[str, Results], section: str | None = None) -> list[Row]:
    """A row for each scenario that any of the labs ran, or for those of one section, in the curriculum's order."""
    checks = [
        (result.scenario.partition("::")[0], name, result)
        for name, results in labs.items()
        for result in results.results
        if section in (None, result.section)
    ]
    checks.sort(key=lambda each: (each[2].kind != "dag", each[0]))  # keeps the order of labs and checks
    return [_row(file, [each[1:] for each in found]) for file, found in groupby(checks, key=lambda each: each[0])]


def _row(file: str, checks: list[tuple[str, Result]]) -> Row:
    verdicts: dict[str, Verdict] = {}
    counts = {name: (0, 0) for name, _ in checks}
    results: dict[str, Any] = {}
    for name, result in checks:
        verdicts[name] = min(verdicts.get(name, result.verdict), result.verdict, key=TELLING.index)
        passed, all_ = counts[name]
        counts[name] = (passed + (result.verdict == "passed"), all_ + 1)
        for label, value in result.evidence:
            if label == RESULT:
                results[name] = value
    seen: dict[str, list[tuple[str, Result]]] = {}
    for name, result in checks:  # a check of another name is another check
        seen.setdefault(result.scenario, []).append((name, result))
    agreement = Counter(_agreement([result.verdict for _, result in found]) for found in seen.values())
    reasons = tuple(reason for found in seen.values() for reason in _reasons(found))
    first = checks[0][1]
    name = file.rpartition("/")[2].removesuffix(".py").removeprefix("test_")
    return Row(first.section, name, first.title, verdicts, counts, results, agreement, reasons)


def _agreement(verdicts: Sequence[Verdict]) -> Agreement:
    if len(verdicts) == 1:
        return "alone"
    return verdicts[0] if len(set(verdicts)) == 1 else "differs"


def _reasons(found: Sequence[tuple[str, Result]]) -> Iterator[tuple[str, Reason]]:
    """Why verdicts of a check differ."""
    if _agreement([result.verdict for _, result in found]) == "differs":
        for name, result in found:
            if result.verdict != "passed":
                yield result.check, Reason(name, result.verdict, result.message.partition("\n")[0])


def summary(rows: Iterable[Row]) -> str:
    """How many checks agree, with which verdicts, and how many do not."""
    counts: Counter[Agreement] = Counter()
    for row in rows:
        counts.update(row.agreement)
    same = {verdict: counts[verdict] for verdict in get_args(Verdict) if counts[verdict]}
    alone = f"; that one lab alone has: {counts['alone']}" if counts["alone"] else ""
    by_verdict = f" ({', '.join(f'{count} {verdict}' for verdict, count in same.items())})" if same else ""
    return f"checks that agree: {sum(same.values())}{by_verdict}; that differ: {counts['differs']}{alone}"


def explanations(rows: Iterable[Row]) -> dict[Reason, int]:
    """Each reason for which checks differ, and of how many it is one, the most frequent first."""
    return dict(Counter(reason for row in rows for _, reason in row.reasons).most_common())
