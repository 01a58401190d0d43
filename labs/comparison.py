"""The same scenarios on several labs, side by side: their verdicts, and whether the DAGs' own results are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from labs.results import Result, Results, Verdict

RESULT = "result"
"""Label of the evidence that is the same wherever a DAG runs: what it computed."""


TELLING: tuple[Verdict, ...] = ("failed", "unknown", "passed", "not applicable")
"""Which verdict of several checks stands for all of them: what is not applicable takes nothing from a pass."""


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
        reasons: for checks whose verdicts differ: the check, the lab, its verdict, and why it did not pass.
    """

    section: str
    name: str
    title: str
    verdicts: Mapping[str, Verdict]
    counts: Mapping[str, tuple[int, int]]
    results: Mapping[str, Any]
    reasons: tuple[tuple[str, str, Verdict, str], ...]

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
    first = checks[0][1]
    name = file.rpartition("/")[2].removesuffix(".py").removeprefix("test_")
    return Row(first.section, name, first.title, verdicts, counts, results, tuple(_reasons(checks)))


def _reasons(checks: list[tuple[str, Result]]) -> Iterator[tuple[str, str, Verdict, str]]:
    """Why verdicts of a check differ; a check of another name is another check."""
    seen: dict[str, list[tuple[str, Result]]] = {}
    for name, result in checks:
        seen.setdefault(result.scenario, []).append((name, result))
    for found in seen.values():
        if len(Counter(result.verdict for _, result in found)) > 1:
            for name, result in found:
                if result.verdict != "passed":
                    yield result.check, name, result.verdict, result.message.partition("\n")[0]
