"""Services of Airflow of which a lab has several, told apart by the jobs that they report as.

The health endpoint knows the latest heartbeat of each kind of service, whoever sent it.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/logging-monitoring/check-health.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_client.client import JobApi

from labs.airflow import Airflow, AirflowError

JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


@dataclass(frozen=True)
class Job:
    """The latest job of a replica: one life of it, as Airflow sees it."""

    id: int
    state: str
    heartbeat: datetime
    began: datetime


class Replicas:
    """The replicas of one lab that send heartbeats.

    Args:
        services: of the lab's outputs.
    """

    def __init__(self, airflow: Airflow, services: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._airflow = airflow
        self.names = {role: [str(each["name"]) for each in services[role]] for role in JOBS}

    def jobs(self, *, patience: float | None = None) -> dict[str, Job]:
        """The latest job of each replica that has reported."""
        found: dict[str, Job] = {}
        for role, names in self.names.items():
            answer = self._airflow.call(
                JobApi(self._airflow.client).get_jobs,
                patience=patience,
                job_type=JOBS[role],
                order_by=["-id"],
                limit=100,
            )
            for job in answer.jobs:
                if job.hostname in names and job.latest_heartbeat and job.start_date:
                    seen = Job(job.id, job.state or "none", job.latest_heartbeat, job.start_date)
                    found.setdefault(job.hostname, seen)
        return found

    def unwell(self, since: float) -> str:
        """The first replica whose job does not run or sent no heartbeat after `since`, in words; "" for none."""
        if all(len(names) == 1 for names in self.names.values()):  # the health endpoint says it all
            return ""
        try:
            jobs = self.jobs(patience=0)
        except AirflowError as error:
            return str(error)
        for name in (name for names in self.names.values() for name in names):
            job = jobs.get(name)
            if job is None or job.heartbeat.timestamp() < since:
                return f"{name} has sent no heartbeat since"
            if job.state != "running":
                return f"the job of {name} is {job.state}"
        return ""
