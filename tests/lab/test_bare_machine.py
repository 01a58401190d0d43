"""The lab `ha` where haproxy and pgbouncer are missing: it says so, and still fails over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labs.results import Results
from labs.verify import report_directory
from tests.lab.conftest import RunLab, running

pytestmark = pytest.mark.long

MISSING = ("haproxy", "pgbouncer")


def path_without(programs: tuple[str, ...], aside: Path) -> str:
    """The PATH, but folders that have one of these programs are replaced by links to all that is in them else."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    for at, folder in enumerate(folders):
        if any((folder / program).exists() for program in programs):
            folders[at] = aside / str(at)
            folders[at].mkdir()
            for file in folder.iterdir():
                if file.name not in programs:
                    (folders[at] / file.name).symlink_to(file)
    return os.pathsep.join(map(str, folders))


def test_two_of_everything_without_what_stands_before_them(
    lab: RunLab, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path_without(MISSING, tmp_path))
    with running(lab, "ha", name) as up:
        assert not {"load-balancer", "pgbouncer"} & set(up.outputs["services"])
        notes = json.loads(lab("status", name, "--json").stdout)["notes"]
        assert [note.split(" on the PATH")[0] for note in notes] == [f"No {program}" for program in MISSING]
        done = lab("verify", name, "-k", "35_10_01", "-k", "one_api_server_lost")
        assert done.returncode == 0, done.stdout
        results = Results.load(report_directory(name) / "results.json").results
    (lost,) = [result for result in results if "one_api_server_lost" in result.scenario]
    assert dict(lost.evidence)["a load balancer"] is False
    lacking = [result.message for result in results if result.verdict == "not applicable"]
    left = [message for message in lacking if not message.startswith("needs platform kubernetes")]
    assert left == ["needs pgbouncer on the PATH; without, all connections go straight to the database"]
