"""Results: what is written is what is read, no secret is in it, and nothing proven is no success."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from labs.errors import ExitCode, LabError
from labs.results import Claim, Result, Results, Verdict, plain, redacted, secrets_of, undecided, worst
from labs.runs import Run, TaskInstance

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
TASK = TaskInstance("d", "r", "t", 3, 2, "failed", hostname="vm", pid=7, queued=NOON, started=NOON)
RESULT = Result(
    scenario="section/test_35_02_01_x.py::test_a",
    section="35.2",
    title="Tasks run side by side.",
    check="They overlap.",
    dag="35_02_01_x",
    kind="dag",
    verdict="passed",
    message="",
    hint="look",
    seconds=1.5,
    evidence=(("pids", [1, 2]), ("rows", [{"a": None}])),
    claims=(Claim("it is so", "seed 003", "holds", "3.3.2", {"tasks": 2}),),
    runs=(TASK, replace(TASK, state=None, ended=NOON, pid=None)),
    logs={"scheduler": "last words"},
)


def results(*verdicts: Verdict) -> Results:
    found = tuple(replace(RESULT, scenario=f"{n}", verdict=v) for n, v in enumerate(verdicts))
    return Results("local", NOON, 2.5, {"cores": "2"}, found)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    results("passed", "unknown").save(path)
    assert Results.load(path) == results("passed", "unknown")
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["passed"], ExitCode.OK),
        (["passed", "not applicable"], ExitCode.OK),
        (["passed", "failed", "unknown"], ExitCode.FAILED),
        (["passed", "unknown"], ExitCode.NOT_PROVEN),
        (["not applicable"], ExitCode.NOT_PROVEN),
        ([], ExitCode.NOT_PROVEN),
    ],
)
def test_only_a_pass_and_nothing_undecided_is_a_success(verdicts: list[Verdict], code: ExitCode) -> None:
    assert results(*verdicts).exit_code() == code


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_file_of_something_else_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(LabError, match=r"cannot be read .*; run the scenarios again"):
        Results.load(path)


def test_a_verdict_that_nobody_knows_is_not_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results("passed").save(path)
    path.write_text(path.read_text().replace('"passed"', '"fine"'))
    with pytest.raises(LabError, match="verdict 'fine'"):
        Results.load(path)


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="run the scenarios first"):
        Results.load(tmp_path / "results.json")


def test_a_failure_outweighs_a_crash_and_a_crash_a_pass() -> None:
    assert worst("passed", "failed") == worst("failed", "unknown") == "failed"
    assert worst("unknown", "passed") == worst("not applicable", "unknown") == "unknown"
    assert worst("not applicable", "passed") == "not applicable"


def test_a_check_that_did_not_pass_decides_no_claim() -> None:
    assert undecided(RESULT).claims[0].verdict == "holds"
    for verdict in ("failed", "unknown", "not applicable"):
        assert undecided(replace(RESULT, verdict=verdict)).claims[0].verdict == "unknown"


def test_evidence_becomes_plain_json() -> None:
    run = Run("d", "r", "success", started=NOON)
    assert plain({1: (run, {3, 2}, Path("x"), TASK)}) == {
        "1": [
            {
                "dag_id": "d", "run_id": "r", "state": "success",
                "queued": None, "started": "2026-01-01T12:00:00+00:00", "ended": None,
            },
            [2, 3],
            "x",
            TASK.to_json(),
        ]
    }  # fmt: skip


def test_secrets_are_found_by_the_names_of_the_outputs() -> None:
    outputs = {"admin_password": "p", "jwt_secret": "s", "fernet_key": "k", "api_url": "u", "token_count": 3}
    assert secrets_of(outputs) == {"p", "s", "k"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("with the-word in it", "with ••• in it"),
        ("postgresql+psycopg2://me:pw@host:1/db", "postgresql+psycopg2://me:•••@host:1/db"),
        ("redis://:pw@host", "redis://:•••@host"),
        ("Bearer eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJ4In0xyz.abc-_x", "Bearer •••"),
        ("http://host:8080/path?at=a@b", "http://host:8080/path?at=a@b"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redacted({text: [text]}, ["the-word", ""]) == {shown: [shown]}


def test_saved_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    leaky = replace(RESULT, logs={"api": 'the "word" slipped'}, message='"word"', hint="postgresql://a:pw@h/x")
    replace(results(), results=(leaky,)).save(path, ['"word"'])
    assert "word" not in path.read_text()
    assert "pw" not in path.read_text()


def test_labels_and_durations_of_task_instances() -> None:
    assert (TASK.label, replace(TASK, map_index=-1).label) == ("t[3]", "t")
    assert (TASK.seconds, replace(TASK, ended=NOON).seconds) == (None, 0)
