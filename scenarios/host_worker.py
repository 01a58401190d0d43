"""An edge worker outside of all platforms: a plain process of this machine that joins a lab through its published API.

It is what somebody does who has a machine that is none of the cluster's: packages, DAGs, an AIRFLOW_HOME of its own,
the address, and the one secret with which a worker logs in. That is in a file of its owner's alone, which Airflow reads
by itself: in no argument, and in no environment.
Source: https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html (`_cmd`)
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from components.dag_folder import section_folders
from labs import processes
from labs.cache import environment
from labs.errors import LabError
from labs.paths import run_directory
from labs.waiting import until
from scenarios.probing import PROBES

NAME = "host-worker"

START, DRAIN = 90.0, 60.0
"""Seconds until it has registered, about 5 on two idle cores; and to end what it runs."""


@dataclass(frozen=True)
class HostWorker:
    """The worker while it is there.

    Attributes:
        home: its AIRFLOW_HOME, with all that it keeps.
        process: the worker itself.
        command: what started it.
        settings: the part of its environment that is Airflow's.
    """

    home: Path
    process: psutil.Process
    command: Sequence[str]
    settings: Mapping[str, str]

    def by_hand(self) -> str:
        """The same as a line for a shell."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.settings.items()]
        return " ".join([*variables, shlex.join(self.command)])


def settings(outputs: Mapping[str, Any], home: Path, dags: Path, secret: Path) -> dict[str, str]:
    """What a worker must be told, wherever it runs.

    Args:
        outputs: of the lab that it joins.
        home: its AIRFLOW_HOME.
        dags: folder with the same files below it as the lab's has.
        secret: file with the lab's JWT secret.
    """
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": ",".join(outputs["executors"]),
        "AIRFLOW__EDGE__API_URL": f"{outputs['api_url']}/edge_worker/v1/rpcapi",
        "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "3",  # as those of the lab
        "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET_CMD": f"cat {shlex.quote(str(secret))}",
    }


@contextmanager
def host_worker(lab: str, outputs: Mapping[str, Any], secret: str, *queues: str) -> Iterator[HostWorker]:
    """A worker of this machine that serves these queues of a lab; neither process nor file is left of it.

    Raises:
        LabError: it ends while it starts; with the last lines of its log.
    """
    home, bin_ = run_directory(lab) / NAME, environment("airflow") / "bin"
    file, registered, log = home / "secret", home / "registered.pid", home / "worker.log"
    command = [str(bin_ / "airflow"), "edge", "worker", "--edge-hostname", NAME, "--queues", ",".join(queues)]
    command += ["--concurrency", "1", "--pid", str(registered)]
    told = settings(outputs, home, home / "dags", file)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
    clean |= {"PATH": f"{bin_}:{os.environ['PATH']}", **processes.marks(str(run_directory(lab)), NAME), **told}

    def last_lines() -> str:
        return "the last lines of its log:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-10:])

    with _home(home, section_folders(outputs["sections"]), outputs["paths"]["dags"]):
        file.touch(mode=0o600)
        file.write_text(secret)
        with (
            log.open("wb") as out,
            subprocess.Popen(command, cwd=home, env=clean, stdout=out, stderr=out, start_new_session=True) as worker,
        ):

            def joined() -> tuple[bool | None, str]:
                if worker.poll() is not None:
                    raise LabError(f"the worker ended with {worker.returncode} while it started; {last_lines()}")
                return (True if registered.exists() else None), "it has not registered"

            def drained() -> tuple[int | None, str]:
                return worker.poll(), "it runs"

            try:
                until(joined, what="a worker of this machine to register", timeout=START, detail=last_lines)
                yield HostWorker(home, psutil.Process(worker.pid), command, told)
                worker.send_signal(signal.SIGINT)  # takes nothing more, and ends when what it runs has ended
                until(drained, what="the worker of this machine to end", timeout=DRAIN, detail=last_lines)
            finally:
                processes.end(processes.marked(str(run_directory(lab)), NAME))


@contextmanager
def _home(home: Path, sections: Sequence[Path], dags: str) -> Iterator[None]:
    """A folder of its owner's alone, with the files that the lab's DAG folder has, while the block runs."""
    shutil.rmtree(home, ignore_errors=True)
    try:
        (home / "dags").mkdir(parents=True)
        home.chmod(0o700)
        for folder in [*sections, *([Path(dags, PROBES.name)] if dags else [])]:
            (home / "dags" / folder.name).symlink_to(folder)
        yield
    finally:
        shutil.rmtree(home)
