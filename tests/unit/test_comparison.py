"""Labs side by side: the worst verdict of each scenario, what differs and why, and whether DAGs computed the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from labs.comparison import RESULT, compare
from labs.report import comparison_page
from labs.results import Result, Results, Verdict
from tests.unit.test_results import NOON
from tests.unit.test_results import RESULT as CHECK


def check(name: str, verdict: Verdict = "passed", computed: Any = None, **changes: Any) -> Result:
    evidence = () if computed is None else ((RESULT, computed),)
    return replace(CHECK, scenario=f"s/test_35_05_01_x.py::{name}", verdict=verdict, evidence=evidence, **changes)


def lab(*checks: Result) -> Results:
    return Results("a", NOON, 1.0, {}, checks)


def test_a_scenario_is_one_row_with_the_worst_verdict_of_each_lab() -> None:
    labs = {
        "a": lab(check("one", computed=12), check("two")),
        "b": lab(check("one", computed=12), check("two", "not applicable", message="needs a GPU\nmore")),
        "c": lab(),
    }
    (row,) = compare(labs)
    assert (row.name, row.title, row.section) == ("35_05_01_x", CHECK.title, "35.2")
    assert row.verdicts == {"a": "passed", "b": "passed"}
    assert row.counts == {"a": (2, 2), "b": (1, 2)}
    assert row.same is True
    assert row.reasons == ((CHECK.check, "b", "not applicable", "needs a GPU"),)
    page = comparison_page(labs, [row])
    assert "needs a GPU" in page and "the same" in page


def test_another_result_is_told() -> None:
    (row,) = compare({"a": lab(check("one", computed=12)), "b": lab(check("one", computed=13))})
    assert row.same is False
    assert "differs: {'a': 12" in comparison_page({}, [row])


def test_one_result_alone_is_not_compared_and_sections_can_be_chosen() -> None:
    labs = {"a": lab(check("one", computed=12)), "b": lab(check("two"))}
    (row,) = compare(labs)
    assert row.same is None
    assert compare(labs, "35.9") == []
    assert [each.name for each in compare(labs, "35.2")] == ["35_05_01_x"]
