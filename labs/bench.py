"""`bench startup`: this project's local lab against `airflow standalone`, side by side.

Both start from nothing (no lab directory, an empty AIRFLOW_HOME) with warm caches: the same installed packages,
the same DAG folder, the same DAG. The clock runs from the command to the first successful run of that DAG.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from components.dag_folder import section_folders
from components.platforms.process.inspection import memory
from labs import processes
from labs.airflow import Airflow
from labs.cache import environment
from labs.console import duration, err, out
from labs.errors import LabError
from labs.lab import Lab
from labs.paths import run_directory
from labs.waiting import until
from stacks.catalogue import LABS

DAG = "35_01_02_portable_dag"
"""The first of the curriculum's DAGs that uses nothing but the standard operators and TaskFlow."""

NAME = "bench-startup"


@dataclass(frozen=True)
class Measurement:
    """One start.

    Attributes:
        success: seconds from the command to the end of the first successful run.
        memory: bytes when idle after that run (PSS).
    """

    success: float
    memory: int


def _run(airflow: Airflow) -> None:
    airflow.wait_for_dag(DAG, 300)
    run = airflow.wait(airflow.trigger(DAG), 300)
    if run.state != "success":
        raise LabError(f"the run of {DAG} ended as {run.state}; {airflow.explain(run)}")


def _idle(find: Any) -> int:
    """Memory once no task process is left and two looks in a row agree within 2 %."""
    seen: list[int] = []

    def steady() -> tuple[int | None, str]:
        seen.append(memory(find()))
        agree = len(seen) > 1 and abs(seen[-1] - seen[-2]) < 0.02 * seen[-1]
        return (seen[-1] if agree else None), f"{seen[-1] / 2**20:.0f} MiB"

    return until(steady, what="memory to be steady", timeout=120, interval=5)


def measure_lab() -> Measurement:
    """`up local` to the first success, with the embedded engine."""
    lab = Lab.request("local", name=NAME, engine="embedded")
    begun = time.monotonic()
    try:
        outputs = lab.up().outputs
        _run(Airflow(outputs["api_url"], outputs["admin_user"], outputs["admin_password"]))
        success = time.monotonic() - begun
        return Measurement(success, _idle(lambda: processes.marked(str(run_directory(NAME)))))
    finally:
        lab.down()


@contextlib.contextmanager
def _standalone() -> Iterator[tuple[str, Path]]:
    home = Path(tempfile.mkdtemp(prefix="airflow-standalone-"))
    dags = home / "dags"
    dags.mkdir()
    for folder in section_folders(LABS["local"].sections):
        (dags / folder.name).symlink_to(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        processes.LAB_MARK: str(home),
        processes.KEEP_MARKS: "1",
    }
    bin_ = environment("airflow") / "bin"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
    with (home / "standalone.log").open("wb") as log:
        server = subprocess.Popen(
            [bin_ / "airflow", "standalone"],
            env=clean | settings | {"PATH": f"{bin_}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield url, home
        finally:
            server.terminate()
            processes.end_all(str(home), grace=10)
            server.wait()
            shutil.rmtree(home)


def measure_standalone() -> Measurement:
    """`airflow standalone` to the first success: SQLite, its own defaults."""
    begun = time.monotonic()
    with _standalone() as (url, home):
        passwords = home / "simple_auth_manager_passwords.json.generated"

        def password() -> tuple[str | None, str]:
            with contextlib.suppress(OSError, ValueError):
                socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1).close()
                return str(json.loads(passwords.read_text())["admin"]), "answers"
            return None, "no answer yet"

        secret = until(password, what="airflow standalone to answer", timeout=300, interval=0.1)
        _run(Airflow(url, "admin", secret))
        success = time.monotonic() - begun

        def members() -> list[psutil.Process]:
            return processes.marked(str(home))

        return Measurement(success, _idle(members))


def bench_startup(rounds: int) -> dict[str, Any]:
    """Alternate both for some rounds; prints a table and returns the figures."""
    Lab.request("local", name=NAME, engine="embedded")
    environment("airflow"), environment("servers")
    measured: dict[str, list[Measurement]] = {"lab": [], "standalone": []}
    measure = {"lab": measure_lab, "standalone": measure_standalone}
    for number in range(rounds):
        # each goes first in every other round, so that neither always meets the warmer machine
        for which in ("lab", "standalone") if number % 2 == 0 else ("standalone", "lab"):
            measured[which].append(measure[which]())
            last = measured[which][-1]
            err.print(f"round {number + 1} {which}: {duration(last.success)}, {last.memory / 2**20:.0f} MiB")
    seconds = {which: statistics.median(m.success for m in found) for which, found in measured.items()}
    size = {which: statistics.median(m.memory for m in found) / 2**20 for which, found in measured.items()}
    table = Table("median", "lab up local", "airflow standalone", "ratio", "target", box=None, header_style="bold")
    rows = (("first success", seconds, "s", 0.8), ("idle memory", size, "MiB", 1.0))
    for label, values, unit, target in rows:
        ratio = values["lab"] / values["standalone"]
        table.add_row(
            label,
            f"{values['lab']:.1f} {unit}",
            f"{values['standalone']:.1f} {unit}",
            f"[{'green' if ratio <= target else 'red'}]{ratio:.2f}[/]",
            f"≤ {target}",
        )
    out.print(table)
    return {which: [asdict(m) for m in found] for which, found in measured.items()}
