"""The scenarios' own machinery: no check that crashed, was skipped or never ended reads as a pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

CONFTEST = """
from types import SimpleNamespace
import pytest
from scenarios.conftest import *

@pytest.fixture(scope="session")
def lab():
    return SimpleNamespace(
        name="local", platform="process", executors=["LocalExecutor"],
        outputs={
            "sections": ["35.1", "35.2"], "extras": ["metrics"],
            "airflow_version": "3.3.2", "admin_password": "hidden-word",
            "services": {"scheduler": [{"name": "scheduler", "host": "local://", "log": LOG}]},
        },
    )
"""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "pytest", "--rootdir", ".", "-p", "no:cacheprovider"]
OPTIONS = ["--lab", "local", "--results", "results.json"]


def prepared(folder: Path) -> Path:
    """A folder of scenarios with a stand-in for the lab, where warnings are errors as in the project."""
    log = folder / "scheduler.log"
    log.write_text("first line\nthe scheduler's last words\n")
    (folder / "conftest.py").write_text(CONFTEST.replace("LOG", repr(str(log))))
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return folder


@pytest.fixture
def scenarios(tmp_path: Path) -> Path:
    return prepared(tmp_path)


def verify(folder: Path, source: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run one verifier; returns the exit code, each check's result by function name, and standard error."""
    (folder / "test_35_02_01_demo.py").write_text(source)
    process = subprocess.run(
        [*COMMAND, *(options or OPTIONS)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return process.returncode, results(folder), process.stderr


def results(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "results.json").read_text())
    except FileNotFoundError:
        return {}
    return {r["scenario"].split("::")[-1]: r for r in data["results"]}


CHECKS = '''"""Tasks run side by side.

More about it.
"""
import pytest

def test_good(evidence, claim):
    """Two tasks overlap."""
    evidence("rows", [{"pid": 1}, {"pid": 2}])
    claim("one at a time", "seed 003", "outdated", {"most at once": 2})

def test_false(evidence):
    """Is false.

    Hint: look at
    the scheduler.
    """
    evidence("login", {"password": "hidden-word", "url": "postgresql://me:pass-of-me@host/db"})
    assert 1 + 1 == 3, "sum is off, tried hidden-word"

def test_crash(claim):
    claim("one at a time", "seed 003", "holds", {})
    {}["missing"]

@pytest.fixture
def broken():
    raise OSError("no lab")

def test_setup(broken): pass

@pytest.fixture
def not_healed():
    yield
    assert False, "the fault is still there"

def test_teardown(not_healed): pass

@pytest.mark.xfail
def test_expected(): assert False

@pytest.mark.needs(executor="CeleryExecutor")
def test_celery(): raise AssertionError("must not run")

@pytest.mark.needs(platform=("docker", "kubernetes"), because="processes have no image")
def test_container(): raise AssertionError("must not run")

@pytest.mark.needs(extras=("metrics", "pgbouncer"))
def test_extras(): raise AssertionError("must not run")

@pytest.mark.needs(executor=("CeleryExecutor", "LocalExecutor"), platform="process", because="it is met")
@pytest.mark.needs(section="35.2", extras="metrics")
def test_met(): pass
'''


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    folder = prepared(tmp_path_factory.mktemp("verified"))
    code, found, _ = verify(folder, CHECKS)
    return code, found, (folder / "results.json").read_text()


@pytest.fixture
def found(verified: tuple[int, dict[str, Any], str]) -> dict[str, Any]:
    return verified[1]


def test_one_check_that_is_not_passed_makes_the_whole_fail(verified: tuple[int, dict[str, Any], str]) -> None:
    assert verified[0] == 1


def test_a_passed_check_carries_its_evidence(found: dict[str, Any]) -> None:
    result = found["test_good"]
    assert (result["verdict"], result["title"]) == ("passed", "Tasks run side by side.")
    assert (result["section"], result["dag"], result["kind"]) == ("35.2", "35_02_01_demo", "dag")
    assert result["check"] == "Two tasks overlap."
    assert result["evidence"] == [["rows", [{"pid": 1}, {"pid": 2}]]]
    assert result["logs"] == {}


def test_a_false_assertion_is_failed_with_its_hint_and_the_last_log_lines(found: dict[str, Any]) -> None:
    result = found["test_false"]
    assert result["verdict"] == "failed"
    assert result["message"].startswith("sum is off")
    assert result["hint"] == "look at the scheduler."
    assert result["logs"]["scheduler"].endswith("the scheduler's last words")


def test_any_other_exception_is_unknown(found: dict[str, Any]) -> None:
    assert found["test_crash"]["verdict"] == "unknown"
    assert "KeyError: 'missing'" in found["test_crash"]["message"]
    assert found["test_setup"]["verdict"] == "unknown"
    assert found["test_teardown"]["verdict"] == "failed"
    assert found["test_teardown"]["message"].startswith("the fault is still there")


def test_an_expected_failure_shows_nothing(found: dict[str, Any]) -> None:
    assert found["test_expected"]["verdict"] == "unknown"


def test_what_the_lab_cannot_do_is_not_applicable(found: dict[str, Any]) -> None:
    for name, message in {
        "test_celery": "needs executor CeleryExecutor; lab local has LocalExecutor",
        "test_container": "needs platform docker or kubernetes, because processes have no image; lab local has process",
        "test_extras": "needs extras metrics and pgbouncer; lab local has metrics",
    }.items():
        assert (found[name]["verdict"], found[name]["message"]) == ("not applicable", message)
    assert found["test_met"]["verdict"] == "passed"


def test_a_claim_is_decided_only_by_a_check_that_passes(found: dict[str, Any]) -> None:
    (good,), (bad,) = found["test_good"]["claims"], found["test_crash"]["claims"]
    assert (good["verdict"], good["version"], good["numbers"]) == ("outdated", "3.3.2", {"most at once": 2})
    assert bad["verdict"] == "unknown"


def test_secrets_stay_out_of_the_results(verified: tuple[int, dict[str, Any], str]) -> None:
    assert "hidden-word" not in verified[2]
    assert "pass-of-me" not in verified[2]
    assert "postgresql://me:" in verified[2]


def test_only_not_applicable_is_no_success(scenarios: Path) -> None:
    source = 'import pytest\n@pytest.mark.needs(executor="CeleryExecutor")\ndef test_it(): pass\n'
    code, found, _ = verify(scenarios, source)
    assert (code, found["test_it"]["verdict"]) == (3, "not applicable")


def test_a_module_whose_needs_are_not_met_runs_nothing(scenarios: Path) -> None:
    source = (
        'import pytest\npytestmark = pytest.mark.needs(executor="CeleryExecutor")\n'
        '@pytest.fixture(scope="module")\ndef shared():\n    raise OSError("something ran")\n'
        "def test_it(shared): pass\n"
    )
    _, found, _ = verify(scenarios, source)
    assert found["test_it"]["verdict"] == "not applicable"


def test_nothing_collected_is_no_success(scenarios: Path) -> None:
    assert verify(scenarios, "")[:2] == (3, {})


def test_a_module_that_cannot_be_imported_is_unknown(scenarios: Path) -> None:
    (scenarios / "test_35_02_02_sound.py").write_text("def test_sound(): pass\n")
    code, found, _ = verify(scenarios, "import nowhere_to_be_found\n")
    broken = found["test_35_02_01_demo.py"]
    assert (code, broken["verdict"], found["test_sound"]["verdict"]) == (1, "unknown", "passed")
    assert "nowhere_to_be_found" in broken["logs"]["check"]


def test_a_need_that_nobody_knows_is_refused(scenarios: Path) -> None:
    code, _, error = verify(scenarios, 'import pytest\n@pytest.mark.needs(exekutor="x")\ndef test_it(): pass\n')
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "needs exekutor; name a need as one of executor" in error


def test_without_a_lab_there_is_one_sentence(scenarios: Path) -> None:
    code, _, error = verify(scenarios, "def test_it(): pass\n", "--results", "results.json")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "say which running lab to verify with --lab NAME" in error


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_never_reads_as_a_pass(scenarios: Path, sent: signal.Signals) -> None:
    (scenarios / "test_35_02_01_demo.py").write_text(
        """
import pathlib, time
def test_a(): pass
def test_b():
    try:
        pathlib.Path("started").touch()
        time.sleep(60)
    finally:
        pathlib.Path("healed").touch()
def test_c(): pass
"""
    )
    process = subprocess.Popen(
        [*COMMAND, *OPTIONS],
        cwd=scenarios,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (scenarios / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    assert process.wait(20) != 0
    found = results(scenarios)
    assert [found[name]["verdict"] for name in ("test_a", "test_b", "test_c")] == [
        "passed",
        "unknown",
        "unknown",
    ]
    assert found["test_b"]["message"].startswith("was under way")
    assert found["test_c"]["message"].startswith("had not started")
    assert (scenarios / "healed").exists() == (sent == signal.SIGTERM)


def test_nothing_goes_on_when_a_check_was_interrupted(scenarios: Path) -> None:
    code, found, _error = verify(
        scenarios,
        """
from labs.errors import Interrupted
def test_a(): raise Interrupted("interrupted; run `up` to go on")
def test_b(): raise AssertionError("must not run")
""",
    )
    assert code == pytest.ExitCode.INTERRUPTED
    assert [found[name]["verdict"] for name in ("test_a", "test_b")] == ["unknown", "unknown"]
    assert found["test_b"]["message"].startswith("had not started")
