"""Labs side by side: the worst verdict of each scenario, what differs and why, and whether DAGs computed the same."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labs import selftest, verify
from labs.comparison import RESULT, Reason, compare, explanations, summary
from labs.paths import PROJECT_ROOT, lab_directory
from labs.report import COMPARISON, comparison_page
from labs.results import Result, Results, Verdict
from labs.selftest import Trial, trials
from stacks.catalogue import EXTRAS, LABS
from stacks.configuration import check_extras
from tests.unit.test_results import NOON
from tests.unit.test_results import RESULT as CHECK


def check(name: str, verdict: Verdict = "passed", computed: Any = None, **changes: Any) -> Result:
    evidence = () if computed is None else ((RESULT, computed),)
    return replace(CHECK, scenario=f"s/test_35_05_01_x.py::{name}", verdict=verdict, evidence=evidence, **changes)


def lab(*checks: Result) -> Results:
    return Results("a", NOON, 1.0, {"commit": "abc"}, checks)


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
    assert row.reasons == ((CHECK.check, Reason("b", "not applicable", "needs a GPU")),)
    page = comparison_page(labs, [row])
    assert "<small>1 × not applicable on b: needs a GPU</small>" in page and "the same" in page


def test_what_differs_is_counted_and_explained_by_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {"message": "needs platform process"}
    labs = {
        "a": lab(
            check("one"), check("two"), check("gpu", "not applicable"), check("run"), check("broken"), check("more")
        ),
        "b": lab(
            check("one", "not applicable", **here),
            check("two", "not applicable", **here),
            check("gpu", "not applicable", message="needs a GPU"),
            check("run"),
            check("broken", "failed", message="2 tasks [gave up]"),
        ),
    }
    rows = compare(labs)
    told = "checks that agree: 2 (1 passed, 1 not applicable); that differ: 3; that one lab alone has: 1"
    assert summary(rows) == told
    why = {Reason("b", "not applicable", "needs platform process"): 2, Reason("b", "failed", "2 tasks [gave up]"): 1}
    assert explanations(rows) == why

    for name, results in labs.items():
        results.save(tmp_path / name / "results.json")
    monkeypatch.setattr(verify, "report_directory", tmp_path.joinpath)
    assert verify.compare_labs(["a", "b"], output=tmp_path / "page.html") == 1  # what failed on b passed on a
    printed = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["35_05_01_x", "✓", "5/6", "✗", "1/5", "(1)", "(2)"] for line in printed)
    assert printed[-4:-1] == [
        told,
        "(1) 2 × not applicable on b: needs platform process",
        "(2) 1 × failed on b: 2 tasks [gave up]",
    ]
    assert f"C{told[1:]}." in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("verdict", "code"), [("passed", 0), ("not applicable", 0), ("failed", 1)])
def test_a_lab_is_put_beside_the_same_on_processes(
    verdict: Verdict, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (selftest, verify):
        monkeypatch.setattr(module, "report_directory", tmp_path.joinpath)
    reported = []

    def run(verb: str, *names: str) -> int:
        if verb == "report":
            reported.extend((name, (tmp_path / name / COMPARISON).exists()) for name in names)
            return 0
        *labs, _, output = names
        return verify.compare_labs(labs, output=Path(output))

    assert selftest._beside_processes(Trial("local", "docker"), run) == 0
    assert "not compared with test-local-process, as one" in capsys.readouterr().err
    assert reported == []
    lab(check("one")).save(tmp_path / "test-local-process" / "results.json")
    lab(check("one", verdict)).save(tmp_path / "test-local-docker" / "results.json")
    assert selftest._beside_processes(Trial("local", "docker"), run) == code
    assert reported == [("test-local-docker", True)]  # so that it has the link
    page = (tmp_path / "test-local-docker" / COMPARISON).read_text()
    assert "<dt>test-local-process</dt><dd>" in page and "commit abc" in page


def test_names_that_do_not_fit_are_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "report_directory", tmp_path.joinpath)
    for count, told in ((2, "scenario    lab-0  lab-1  result"), (12, "A: lab-0\nB: lab-1\n")):
        names = [f"lab-{number}" for number in range(count)]
        for name in names:
            lab(check("one")).save(tmp_path / name / "results.json")
        verify.compare_labs(names)
        assert told in capsys.readouterr().out


def test_in_a_cluster_labs_are_tried_with_their_extras_too() -> None:
    found = trials("kubernetes")
    for trial in found:
        lab_directory(trial.name)  # it can have that name
        check_extras(LABS[trial.lab].on("kubernetes"), "kubernetes", trial.extras)
    assert len({trial.name for trial in found}) == len(found)
    assert [trial.lab for trial in found if not trial.extras] == list(LABS)
    assert {extra for trial in found for extra in trial.extras} == set(EXTRAS) - {"flower"}  # no scenario looks at that
    assert not any(trial.extras for trial in trials("process"))
    scenarios = {path.stem for path in (PROJECT_ROOT / "scenarios").rglob("test_*.py")}
    assert all(any(part in name for name in scenarios) for trial in found for part in trial.only)
    assert all(bool(trial.only) == bool(trial.extras) for trial in found)
    assert Trial("celery", "kubernetes", ["keda"]).options == [
        *("celery", "--name", "test-celery-kubernetes-keda", "--platform", "kubernetes", "--with", "keda"),
        "--dedicated",
    ]


def test_a_lab_that_wants_the_machine_for_itself_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running: set[str] = set()
    beside: dict[str, set[str]] = {}
    met = threading.Barrier(2, timeout=20)

    def verify(trial: Trial) -> Any:
        beside[trial.lab] = set(running)
        running.add(trial.lab)
        if not trial.alone:
            met.wait()
        running.remove(trial.lab)
        return 0, {"up": 1.0}, None

    asked = [Trial(lab, "kubernetes") for lab in ("local", "celery", "ha")]
    monkeypatch.setattr(selftest, "_verify", verify)
    monkeypatch.setattr(selftest, "trials", lambda _platform: asked)
    monkeypatch.setattr(selftest.os, "cpu_count", lambda: 2)
    assert selftest.verify_platform("kubernetes") == 0
    assert beside["ha"] == set() and set(beside) == {"local", "celery", "ha"}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:4]] == ["local", "celery", "ha"]


def test_labs_that_agree_have_nothing_to_explain() -> None:
    rows = compare({"a": lab(check("one")), "b": lab(check("one"))})
    assert summary(rows) == "checks that agree: 1 (1 passed); that differ: 0"
    assert explanations(rows) == {}


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
