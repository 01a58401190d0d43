"""Edge sites: what the edge API tells of their workers, and what the machine on which they run shows.

Source: https://airflow.apache.org/docs/apache-airflow-providers-edge3/stable/ui_plugin.html
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from airflow_client.client.exceptions import ApiException

from labs.airflow import Airflow
from labs.runs import Run, TaskInstance
from labs.waiting import until
from scenarios.faulting import Services, late_fails

LOST = 15.0
"""Seconds without a heartbeat after which the labs' Airflow takes a site for lost: five `[edge] heartbeat_interval`."""

UP = ("idle", "running")
"""States of a worker that takes jobs."""


@dataclass(frozen=True)
class Site:
    """What Airflow knows of one site's worker.

    Attributes:
        state: `idle`, `running`, `maintenance mode`, `offline`, `unknown`, …
        queues: in the order of their names; Airflow keeps none.
        jobs: how many it runs.
        concurrency: how many it may run, as it last reported.
        heartbeat: when it last reported.
        comment: why it is in maintenance, "" for no reason given.
    """

    name: str
    state: str
    queues: tuple[str, ...]
    jobs: int
    concurrency: int
    heartbeat: datetime
    comment: str


@dataclass(frozen=True)
class Job:
    """One task instance as the edge executor handed it out; `worker` is the site that fetched it."""

    task_id: str
    map_index: int
    try_number: int
    state: str
    queue: str
    worker: str


class Sites:
    """The sites of one lab."""

    def __init__(self, airflow: Airflow, services: Services) -> None:
        self._airflow = airflow
        self._services = services

    # -- as Airflow sees them

    def all(self) -> dict[str, Site]:
        """Every worker that has ever registered, by name."""
        return {row["worker_name"]: _site(row) for row in self._ask("GET", "worker")["workers"]}

    def jobs(self, run: Run) -> list[Job]:
        """The jobs of a run, as the edge executor wrote them down."""
        rows = self._ask("GET", f"jobs?run_id_pattern={quote(run.run_id)}")["jobs"]
        return [
            Job(r["task_id"], r["map_index"], r["try_number"], r["state"], r["queue"], r["edge_worker"] or "")
            for r in rows
        ]

    def wait(self, name: str, met: Callable[[Site], bool], *, what: str, timeout: float = LOST) -> Site:
        """Wait until a site is as `what` says; one that is not so within `timeout` seconds fails the check."""

        def probe() -> tuple[Site | None, str]:
            site = self.all().get(name)
            return (site if site and met(site) else None), str(site or "not registered")

        with late_fails():
            return until(probe, what=f"{name} to be {what}", timeout=timeout, interval=0.1)

    def unwell(self, since: float) -> str:
        """Which site is not up, or sent no heartbeat after `since` (epoch seconds), in words; "" for none."""
        for site in self.all().values():
            if site.state not in UP:
                return f"{site.name} is {site.state}"
            if site.heartbeat.timestamp() < since:
                return f"the last heartbeat of {site.name} is {since - site.heartbeat.timestamp():.0f} s too old"
        return ""

    def request_maintenance(self, name: str, comment: str) -> None:
        """Ask a worker to end what it runs and to take nothing new."""
        self._ask("POST", f"worker/{name}/maintenance", {"maintenance_comment": comment})

    def exit_maintenance(self, name: str) -> None:
        """Let a worker take jobs again."""
        self._ask("DELETE", f"worker/{name}/maintenance")

    def request_shutdown(self, name: str) -> None:
        """Ask a worker to end what it runs, and then to end."""
        self._ask("POST", f"worker/{name}/shutdown")

    def forget(self, name: str) -> None:
        """Have Airflow forget a worker that has ended for good."""
        self._ask("DELETE", f"worker/{name}")

    def set_concurrency(self, name: str, concurrency: int) -> None:
        """Change how many jobs a worker may run; it learns of it with its next heartbeat."""
        self._ask("PATCH", f"worker/{name}/concurrency", {"concurrency": concurrency})

    def add_queue(self, name: str, queue: str) -> None:
        """Let a worker serve one more queue."""
        self._ask("PUT", f"worker/{name}/queues/{queue}")

    def remove_queue(self, name: str, queue: str) -> None:
        """Let a worker serve a queue no longer."""
        self._ask("DELETE", f"worker/{name}/queues/{queue}")

    def log(self, ti: TaskInstance, text: str) -> str:
        """The log of a task instance, once it holds `text`: a site may push the last lines after the task has ended."""

        def probe() -> tuple[str | None, str]:
            log = self._airflow.log(ti)
            return (log if text in log else None), log[-500:]

        with late_fails():
            return until(probe, what=f"{text!r} in the log of {ti.label}", timeout=LOST, interval=0.3)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        client = self._airflow.client

        def edge_api(_request_timeout: Any) -> Any:
            response = client.call_api(
                method=method,
                url=f"{self._airflow.api_url}/edge_worker/ui/{path}",
                header_params={
                    "Authorization": f"Bearer {client.configuration.access_token}",
                    "Content-Type": "application/json",
                },
                body=body,
                _request_timeout=_request_timeout,
            )
            text = response.read().decode()  # type: ignore[no-untyped-call]
            if response.status >= 300:
                raise ApiException.from_response(http_resp=response, body=text, data=None)
            return json.loads(text) if text else None

        return self._airflow.call(edge_api)

    # -- as their machine shows them

    def processes(self, name: str) -> list[psutil.Process]:
        """The worker, the supervisors of its tasks, and the tasks."""
        return list(self._services.incarnation(name).parts)

    def worker(self, name: str) -> psutil.Process:
        """The worker itself."""
        return self.processes(name)[0]

    def path(self, name: str, path: str) -> Path:
        """A path of a site, as this machine reaches it."""
        return self._services.root(name) / path.lstrip("/")

    def home(self, name: str) -> Path:
        """A site's AIRFLOW_HOME, as this machine reaches it."""
        return self.path(name, self.worker(name).environ()["AIRFLOW_HOME"])

    def try_as(
        self, name: str, command: Sequence[str], *, text: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a site's user, with its worker's environment but without the lab's marks."""
        return self._services.run(name, command, text=text, **variables)


def _site(row: Mapping[str, Any]) -> Site:
    return Site(
        name=row["worker_name"],
        state=row["state"],
        queues=tuple(sorted(row["queues"] or ())),
        jobs=row["jobs_active"],
        concurrency=row["sysinfo"]["concurrency"],
        heartbeat=datetime.fromisoformat(row["last_heartbeat"].replace("Z", "+00:00")),
        comment=row["maintenance_comments"] or "",
    )


def own_users(platform: str) -> bool:
    """Whether each site runs as a user of its own, which only root can arrange; containers part sites otherwise."""
    return platform == "process" and os.geteuid() == 0
