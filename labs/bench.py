"""`bench startup`: this project's local lab against `airflow standalone`, side by side; `bench labs`: every lab.

In the first both start from nothing (no lab directory, an empty AIRFLOW_HOME) with warm caches: the same installed
packages, the same DAG folder, the same DAG. The clock runs from the command to the first successful run of that DAG.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from components.clusters.kind import cluster_name, node_containers
from components.dag_folder import section_folders
from components.platforms.docker import inspection
from components.platforms.process import postgres
from components.platforms.process.inspection import memory
from labs import processes
from labs.airflow import Airflow
from labs.cache import environment
from labs.console import duration, err, out
from labs.daemon import daemon
from labs.errors import LabError
from labs.lab import Lab
from labs.paths import PROJECT_ROOT, run_directory
from labs.runs import Run
from labs.waiting import until
from stacks.catalogue import LABS, check_runnable, find_lab

DAG = "35_01_02_portable_dag"
"""The first of the curriculum's DAGs that uses nothing but the standard operators and TaskFlow."""

NAME = "bench"


@dataclass(frozen=True)
class Measurement:
    """One start.

    Attributes:
        success: seconds from the command to the end of the first successful run.
        memory: bytes when idle after that run (PSS).
    """

    success: float
    memory: int


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _first_success(port: int, passwords: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    """Run the DAG as soon as the API server answers, as a user in front of the UI would."""

    def password() -> tuple[str | None, str]:
        if server.poll():
            raise LabError(f"{server.args!r} ended with {server.returncode}; see {log}")
        with contextlib.suppress(OSError, ValueError, KeyError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return str(json.loads(passwords.read_text())["admin"]), "answers"
        return None, "no answer yet"

    secret = until(password, what=f"the API server on port {port}", timeout=300, interval=0.1)
    _succeed(Airflow(f"http://127.0.0.1:{port}", "admin", secret))


def client(outputs: Mapping[str, Any]) -> Airflow:
    """The Airflow of a lab, by its outputs."""
    return Airflow(outputs["api_url"], outputs["admin_user"], outputs["admin_password"])


def _succeed(airflow: Airflow) -> Run:
    airflow.wait_for_dag(DAG, 300)
    run = airflow.wait(airflow.trigger(DAG), 300)
    if run.state != "success":
        raise LabError(f"the run of {DAG} ended as {run.state}; {airflow.explain(run)}")
    return run


def _of_processes(home: Path) -> int:
    return memory(processes.marked(str(home)))


def _of_nodes(name: str) -> int:
    with daemon() as docker:
        nodes = node_containers(docker, cluster_name(name, dedicated=False))
        return sum(inspection.memory(node.stats(stream=False, one_shot=True)) for node in nodes)


def _idle(used: Callable[[], int]) -> int:
    """Memory once two looks in a row agree within 2 %."""
    seen: list[int] = []

    def steady() -> tuple[int | None, str]:
        seen.append(used())
        agree = len(seen) > 1 and abs(seen[-1] - seen[-2]) < 0.02 * seen[-1]
        return (seen[-1] if agree else None), f"{seen[-1] / 2**20:.0f} MiB"

    return until(steady, what="memory to be steady", timeout=120, interval=5)


@contextlib.contextmanager
def _started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own, without the caller's settings of Airflow."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
    clean |= environment
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=clean, stdout=out, stderr=out, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def measure_lab(scratch: Path) -> Measurement:
    """`./lab up local` to the first success, with the embedded engine."""
    port, log, home = _free_port(), scratch / "lab.log", run_directory(NAME)
    command = [str(PROJECT_ROOT / "lab"), "up", "local", "--name", NAME, "--engine", "embedded", "--port", str(port)]
    begun = time.monotonic()
    try:
        with _started(command, {}, log) as up:
            _first_success(port, home / "passwords" / "passwords.json", up, log)
            success = time.monotonic() - begun
            up.wait(timeout=120)
        return Measurement(success, _idle(lambda: _of_processes(home)))
    finally:
        Lab.of(NAME).down()


def measure_standalone(scratch: Path) -> Measurement:
    """`airflow standalone` to the first success: SQLite, its own defaults."""
    port, log, home = _free_port(), scratch / "standalone.log", scratch / "home"
    dags = home / "dags"
    dags.mkdir(parents=True)
    for folder in section_folders(LABS["local"].sections):
        (dags / folder.name).symlink_to(folder)
    bin_, url = environment("airflow") / "bin", f"http://127.0.0.1:{port}"
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "PATH": f"{bin_}:{os.environ['PATH']}",
        processes.LAB_MARK: str(home),
        processes.KEEP_MARKS: "1",
    }
    begun = time.monotonic()
    with _started([str(bin_ / "airflow"), "standalone"], settings, log) as server:
        try:
            _first_success(port, home / "simple_auth_manager_passwords.json.generated", server, log)
            return Measurement(time.monotonic() - begun, _idle(lambda: _of_processes(home)))
        finally:
            processes.end_all(str(home), grace=10)


@dataclass(frozen=True)
class LabMeasurement:
    """One lab, from nothing to nothing.

    Attributes:
        task: seconds from the command to the end of the first successful task.
        success: seconds from the command to the end of the first successful run.
        memory: bytes when idle after that run: of its processes (PSS), or of all nodes of its cluster.
        down: seconds that the command takes which removes it.
    """

    task: float
    success: float
    memory: int
    down: float


def _lab(*arguments: str) -> str:
    command = [str(PROJECT_ROOT / "lab"), *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`lab {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def measure(
    target: str,
    platform: str,
    name: str = NAME,
    meanwhile: Callable[[Mapping[str, Any], Run], None] = lambda _outputs, _run: None,
) -> LabMeasurement:
    """`./lab up` to the first success, then `./lab down`.

    Args:
        meanwhile: called in between with the lab's outputs and its first run.
    """
    begun = time.time()
    outputs = json.loads(_lab("up", target, "--name", name, "--platform", platform, "--json"))
    try:
        airflow = client(outputs)
        run = _succeed(airflow)
        success = time.time() - begun
        task = min(ti.ended.timestamp() for ti in airflow.task_instances(run) if ti.ended) - begun
        size = _idle(lambda: _of_nodes(name) if platform == "kubernetes" else _of_processes(run_directory(name)))
        meanwhile(outputs, run)
    finally:
        begun = time.time()
        _lab("down", name)
    return LabMeasurement(task, success, size, time.time() - begun)


def bench_labs(platform: str, targets: Collection[str] = ()) -> dict[str, Any]:
    """Measure these labs, or every one of a platform, one by one; prints a table and returns the figures.

    Raises:
        UsageError: there is no such lab, or not on that platform.
    """
    table = Table("lab", "first success", "idle memory", "down", box=None, header_style="bold")
    measured: dict[str, Any] = {}
    for target in targets:
        check_runnable(find_lab(target), platform)
    for target in targets or [lab.name for lab in LABS.values() if platform in lab.platforms]:
        found = measure(target, platform)
        measured[target] = asdict(found)
        row = (f"{found.success:.1f} s", f"{found.memory / 2**20:.0f} MiB", f"{found.down:.1f} s")
        table.add_row(target, *row)
        err.print(f"{target}: {', '.join(row)}")
    out.print(table)
    return measured


def bench_startup(rounds: int) -> dict[str, Any]:
    """Alternate both for some rounds; prints a table and returns the figures."""
    postgres.template()  # warm caches: what both would otherwise pay only once
    measured: dict[str, list[Measurement]] = {"lab": [], "standalone": []}
    sides = {"lab": measure_lab, "standalone": measure_standalone}
    for number in range(rounds):
        # each goes first in every other round, so that neither always meets the warmer machine
        for which in ("lab", "standalone") if number % 2 == 0 else ("standalone", "lab"):
            with tempfile.TemporaryDirectory(prefix="airflow-bench-") as scratch:
                measured[which].append(sides[which](Path(scratch)))
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
