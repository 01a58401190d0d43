"""Celery as it looks from outside: what waits in the broker, what each worker took, what the result backend holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, urlsplit

import psutil

from components.platforms.process.inspection import memory
from labs.errors import LabError
from labs.runs import Run
from labs.service_logs import service_logs
from labs.waiting import until
from scenarios.faulting import Services

TAKEN = re.compile(
    r"\[(?P<message>[0-9a-f-]{36})\] Executing workload in Celery: .*?"
    r" task_id='(?P<task_id>[^']+)', dag_id='[^']+', run_id='(?P<run_id>[^']+)',.*?"
    r" map_index=(?P<map_index>-?\d+),.*? queue='(?P<queue>[^']+)',.*? priority_weight=(?P<weight>\d+)"
)

RESULTS = """
import json, os, sys
from sqlalchemy import bindparam, create_engine, text
engine = create_engine(os.environ["AIRFLOW__CELERY__RESULT_BACKEND"].removeprefix("db+"))
query = text("select task_id, status, result is null from celery_taskmeta where task_id in :ids")
with engine.connect() as connection:
    rows = connection.execute(query.bindparams(bindparam("ids", expanding=True)), {"ids": sys.argv[1:]})
    print(json.dumps([list(row) for row in rows]))
"""

CONTROL = """
import json, sys
from airflow.providers.celery.executors.celery_executor_utils import app
worker, command, arguments = sys.argv[1:]
(reply,) = app.control.broadcast(
    command, json.loads(arguments), pattern=f"{worker}@*", matcher="glob", limit=1, reply=True, timeout=10
)
print(json.dumps(*reply.values()))
"""

PING = """
import json, os, sys
from celery import Celery
control = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"]).control
replies = control.ping(timeout=2, limit=int(sys.argv[1]) or None)
print(json.dumps([name.partition("@")[0] for reply in replies for name in reply]))
"""


@dataclass(frozen=True)
class Taken:
    """One task instance as a worker wrote it down when it took it.

    Attributes:
        message: Celery's id of the message that brought it.
        weight: the effective `priority_weight` that the message says.
    """

    worker: str
    message: str
    task_id: str
    map_index: int
    queue: str
    weight: int


@dataclass(frozen=True)
class Result:
    """One row of the result backend; `empty` says that it holds no value."""

    status: str
    empty: bool


class Celery:
    """The Celery workers of one lab, with their broker and result backend.

    Args:
        outputs: of the lab.
    """

    def __init__(self, outputs: Mapping[str, Any], platform: Services) -> None:
        self._services = outputs["services"]
        self._logs = service_logs(outputs)
        self._platform = platform

    def worker(self, name: str) -> psutil.Process:
        """The main process of a worker."""
        return psutil.Process(int(self._platform.incarnation(name).id))

    def queues(self) -> dict[str, list[str]]:
        """Worker → the queues that it was started for."""
        return {worker["name"]: worker["queues"] for worker in self._services["worker"]}

    def unwell(self) -> str:
        """The workers that do not answer a ping over the broker now, in words; "" for none.

        Of those that an autoscaler scales nobody knows how many there should be.
        """
        scaled = {worker["name"] for worker in self._services["worker"] if "autoscaling" in worker}
        names = [name for name in self.queues() if name not in scaled]
        if not names:
            return ""
        try:
            ended = self._platform.run(names[0], ["python", "-c", PING, str(0 if scaled else len(names))])
        except LabError as error:  # its pod has just gone
            return f"no ping reaches the workers: {error}"
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            return f"no ping reaches the workers: {said[-1]}"
        silent = sorted(set(names) - set(json.loads(ended.stdout)))
        return f"no answer over the broker from {', '.join(silent)}" if silent else ""

    def taken(self, run: Run) -> list[Taken]:
        """What each worker took of a run, from its own log, each worker's in the order in which it took them."""
        return [
            Taken(worker["name"], m["message"], m["task_id"], int(m["map_index"]), m["queue"], int(m["weight"]))
            for worker in self._services["worker"]
            for m in TAKEN.finditer(self._logs[worker["name"]].read())
            if m["run_id"] == run.run_id
        ]

    def waiting(self, *lists: str) -> dict[str, int]:
        """How many messages wait in each of these lists of the broker."""
        return dict(zip(lists, self._ask(*(f"LLEN {name}" for name in lists)), strict=True))

    def unacknowledged(self) -> int:
        """How many messages the broker keeps for workers that have taken them, and have not said that they are done."""
        return self._ask("HLEN unacked")[0]

    @cached_property
    def _broker(self) -> SplitResult:
        """The broker's URL as a worker has it."""
        return urlsplit(self.python("-c", "import os; print(os.environ['AIRFLOW__CELERY__BROKER_URL'])").strip())

    def _ask(self, *commands: str) -> list[int]:
        url = self._broker
        with self._platform.connection("broker", url.port or 0) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in (f"AUTH {url.password}", *commands)).encode())
            with connection.makefile("rb") as answers:
                assert answers.readline() == b"+OK\r\n", "the broker refused the login of the lab's own workers"
                return [int(answers.readline().removeprefix(b":")) for _ in commands]

    def control(self, worker: str, command: str, **arguments: Any) -> Any:
        """What a worker answers to a command of Celery's remote control.

        Source: https://docs.celeryq.dev/en/stable/userguide/workers.html#remote-control
        """
        return json.loads(self.python("-c", CONTROL, worker, command, json.dumps(arguments)))

    def wait_until_idle(self, worker: str) -> None:
        """Wait until a worker has nothing in hand: for a moment it still has a task that has told Airflow of its end.

        A worker that loses the broker meanwhile takes fewer tasks at once when the broker is back, until one more ends.
        Source: https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-enable-prefetch-count-reduction

        Raises:
            WaitTimeout: it goes on with something.
        """

        def idle() -> tuple[bool | None, str]:
            active = self.control(worker, "active")
            return (None if active else True), f"{len(active)} tasks are active"

        until(idle, what=f"{worker} to have nothing in hand", timeout=30)

    def pool(self, worker: str) -> int:
        """How many processes a worker has for tasks; beside them it has one that is called as the worker was."""
        found = 0
        for child in self.worker(worker).children():
            with suppress(psutil.NoSuchProcess):  # one that has just ended
                found += "celery worker" not in " ".join(child.cmdline())
        return found

    def memory(self, worker: str) -> int:
        """Bytes of all processes of a worker and of its tasks, shared pages counted once."""
        main = self.worker(worker)
        return memory([main, *main.children(recursive=True)])

    @contextmanager
    def larger_pool(self, worker: str, by: int) -> Iterator[None]:
        """A worker with so many processes more."""

        def resize(command: str, wanted: int) -> None:
            told = self.control(worker, command, n=by)

            def probe() -> tuple[bool | None, str]:
                now = self.pool(worker)
                return (True if now == wanted else None), f"it has {now}; {told}"

            until(probe, what=f"{worker} to have {wanted} processes", timeout=30)

        before = self.pool(worker)
        resize("pool_grow", before + by)
        try:
            yield
        finally:
            resize("pool_shrink", before)

    @contextmanager
    def serving(self, worker: str, queue: str) -> Iterator[None]:
        """A worker that takes from one more queue."""
        self.control(worker, "add_consumer", queue=queue)
        try:
            yield
        finally:
            self.control(worker, "cancel_consumer", queue=queue)

    def results(self, messages: Iterable[str]) -> dict[str, Result]:
        """The rows that the result backend has for these messages, by message."""
        answer = self.python("-c", RESULTS, *messages)
        return {message: Result(status, empty) for message, status, empty in json.loads(answer)}

    def python(self, *arguments: str) -> str:
        """What Airflow's Python prints when it is called with these arguments, in the environment of a worker."""
        ended = self._platform.run(next(iter(self.queues())), ["python", *arguments])
        assert ended.returncode == 0, f"python ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-3:]}"
        return ended.stdout

    def ended(self, messages: Iterable[str]) -> dict[str, Result]:
        """The same once none of them is `STARTED`: a worker writes the end just after the task has ended."""
        wanted = list(messages)

        def probe() -> tuple[dict[str, Result] | None, str]:
            found = self.results(wanted)
            done = len(found) == len(wanted) and all(row.status != "STARTED" for row in found.values())
            return (found if done else None), f"{len(found)} of {len(wanted)} rows: {sorted(found.items())}"

        return until(probe, what="the workers to write down how their messages ended", timeout=30, interval=0.5)
