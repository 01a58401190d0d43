"""The local lab, end to end, as the README promises it; the tests of this module share one lab."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs import processes
from labs.lab import Lab
from labs.paths import engine_directory, run_directory
from labs.results import Results
from labs.verify import report_directory
from tests.lab.conftest import RunLab, listening, running, turns_red
from tests.lab.mutations import MUTATIONS, Mutation

NAME = "t-local"


@pytest.fixture(scope="module")
def up(lab: RunLab) -> Iterator[Lab]:
    """The lab, up; taken down at the end with proof that nothing is left."""
    with running(lab, "local", NAME) as up:
        yield up


def test_nothing_listens_beyond_loopback(up: Lab) -> None:
    found = listening(processes.marked(str(run_directory(NAME))))
    endpoints = {
        address
        for replicas in up.outputs["services"].values()
        for replica in replicas
        for address in replica["endpoints"].values()
    }
    assert {f"{ip}:{port}" for ip, port in found} == endpoints
    assert {ip for ip, _ in found} == {"127.0.0.1"}


def test_a_second_up_changes_nothing(up: Lab, lab: RunLab) -> None:
    def pids() -> dict[str, int]:
        return {
            service["name"]: service["pid"] for service in json.loads(lab("status", NAME, "--json").stdout)["services"]
        }

    before = pids()
    assert lab("up", "local", "--name", NAME).returncode == 0
    assert pids() == before
    steps = json.loads(lab("preview", "local", "--name", NAME, "--json").stdout)
    assert {step["operation"] for step in steps} == {"same"}


def test_a_changed_option_restarts_only_who_reads_it(up: Lab, lab: RunLab) -> None:
    done = lab("preview", "local", "--name", NAME, "--set", "core.parallelism=3", "--json")
    changes = {step["name"]: step for step in json.loads(done.stdout) if step["operation"] != "same"}
    assert set(changes) == {"scheduler"}
    assert changes["scheduler"]["operation"] == "update"


def test_secrets_are_in_no_log_argument_list_or_plain_checkpoint(up: Lab, lab: RunLab) -> None:
    home = run_directory(NAME)
    password = str(up.outputs["admin_password"])
    scripts = "".join(script.read_text() for script in home.glob("programs/*.sh"))
    found = dict(re.findall(r"export (AIRFLOW__\w+(?:KEY|SECRET|CONN)|POSTGRES_PASSWORD)=(\S+)", scripts))
    assert len(found) >= 5
    secrets = {password, *(value.strip("'") for value in found.values())}
    shown = {" ".join(process.cmdline()) for process in processes.marked(str(home))}
    files = [*home.glob("service-logs/*"), *home.glob("airflow/**/*"), *engine_directory(NAME).glob("checkpoint*")]
    for file in filter(Path.is_file, files):
        shown.add(file.read_text(errors="replace"))
    assert not [secret for secret in secrets for text in shown if secret in text]
    assert all(not script.stat().st_mode & 0o077 for script in home.glob("programs/*.sh"))


def test_status_and_logs_speak_of_every_service(up: Lab, lab: RunLab) -> None:
    status = json.loads(lab("status", NAME, "--json").stdout)
    assert {service["state"] for service in status["services"]} == {"RUNNING"}
    assert {service["name"] for service in status["services"]} == set(up.outputs["services"])
    logs = lab("logs", NAME, "scheduler", "-n", "5")
    assert logs.returncode == 0
    assert "airflow" in logs.stdout
    assert lab("logs", NAME, "nobody").returncode == 2


SCALED = {"35_09_01_executor_scaling", "35_09_05_cost_optimization"}
"""DAGs of a section that every lab has, which are about workers that this lab has not."""


def test_the_lab_is_verified(up: Lab, lab: RunLab) -> None:
    done = lab("verify", NAME)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    results = Results.load(report_directory(NAME) / "results.json").results
    dags = {path.stem for path in Path(str(up.outputs["paths"]["dags"])).glob("*/35_*.py")}
    assert {result.dag for result in results if result.verdict == "passed" and result.dag} == dags - SCALED
    assert {result.kind for result in results if result.verdict == "passed"} == {"dag", "claim", "fault"}
    html = (report_directory(NAME) / "report.html").read_text()
    assert all(dag in html for dag in dags)
    assert str(up.outputs["admin_password"]) not in html


@pytest.mark.parametrize(
    "mutation",
    [pytest.param(each, id=each.name, marks=[pytest.mark.long] if each.long else []) for each in MUTATIONS["local"]],
)
def test_a_verifier_fails_when_its_point_is_broken(up: Lab, lab: RunLab, mutation: Mutation) -> None:
    turns_red(lab, up, mutation)


def test_a_dag_with_an_import_error_shows_airflows_message(up: Lab, lab: RunLab) -> None:
    from labs.airflow import AirflowError  # its client takes a second to import

    airflow = up.airflow()
    broken = Path(str(up.outputs["paths"]["dags"])) / "broken.py"
    broken.write_text("from airflow.sdk import dag\nraise RuntimeError('the extract step has no source')\n")
    begun = time.monotonic()
    try:
        with pytest.raises(AirflowError, match="the extract step has no source"):
            airflow.wait_for_dag("broken", 120, file="broken.py")
        assert time.monotonic() - begun < 60
    finally:
        broken.unlink()


def test_a_dag_that_was_edited_is_parsed_at_once(up: Lab, tmp_path: Path) -> None:
    """Long before `[dag_processor] min_file_process_interval` is over, which is for files that stay as they are."""
    from scenarios.changing import wait_for_text  # Airflow's client takes a second to import
    from scenarios.probing import deployed

    text = "from airflow.sdk import dag\n\n\n@dag(tags=['edited'])\ndef edited(): ...\n\n\nedited()\n"
    folder = tmp_path / "edited"
    folder.mkdir()
    (folder / "edited.py").write_text(text)
    dags, airflow = Path(str(up.outputs["paths"]["dags"])), up.airflow()
    with deployed(airflow, dags, folder, tag="edited"):
        (dags / folder.name / "edited.py").write_text(text + "# and more\n")
        wait_for_text(airflow, "edited", text + "# and more\n", 60)
