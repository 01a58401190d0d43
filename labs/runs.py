"""What Airflow ran, as plain data: what the API access returns, scenarios judge and the report draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

FINISHED_RUN = frozenset({"success", "failed"})
FINISHED_TASK = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class Run:
    """One DAG run; times in UTC, None while not reached."""

    dag_id: str
    run_id: str
    state: str
    queued: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class TaskInstance:
    """One try of one task in one run; times in UTC, None while not reached.

    Attributes:
        map_index: position among the mapped instances of the task, -1 when it is not mapped.
        state: None before the scheduler has looked at it.
        executor: as the task asked for it; None is the lab's default executor.
        hostname: of the worker that runs it, "" before it has started.
        pid: process of the task on that host.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    state: str | None
    executor: str | None = None
    queue: str | None = None
    pool: str = ""
    hostname: str = ""
    pid: int | None = None
    scheduled: datetime | None = None
    queued: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def label(self) -> str:
        """The task as people write it: `load`, or `load[3]` when it is mapped."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def seconds(self) -> float | None:
        """How long it ran; None while it has not ended."""
        if self.started is None or self.ended is None:
            return None
        return (self.ended - self.started).total_seconds()

    def to_json(self) -> dict[str, Any]:
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskInstance:
        values = {f.name: data[f.name] for f in fields(cls)}
        for key in ("scheduled", "queued", "started", "ended"):
            values[key] = datetime.fromisoformat(values[key]) if values[key] else None
        return cls(**values)
