"""A stack over a graph of things, and what the things' world looks like."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from runner import run

from labs.engines.base import Event, Stack
from labs.waiting import until

PROGRAM = Path(__file__).parent / "program"
sys.path.insert(0, str(PROGRAM))

Node = dict[str, Any]


def node(name: str, type_: str = "thing", /, **fields: Any) -> Node:
    """A resource of the graph: `props`, `secrets`, `uses` (property to name), `after`, `in`, `options`."""
    return {"name": name, "type": type_, **fields}


@dataclass(frozen=True)
class Lab:
    """A stack over a graph, the world its things live in, and the events of what was done to it."""

    stack: Stack
    world: Path
    events: list[Event] = field(default_factory=list)

    def over(self, *graph: Node, **config: str) -> Stack:
        """The stack with this graph as its program."""
        extra = {f"airflow-labs:{key}": value for key, value in config.items()}
        own = {"airflow-labs:graph": json.dumps(graph), "airflow-labs:world": str(self.world)}
        return replace(self.stack, config={**own, **extra})

    def watch(self, event: Event) -> None:
        self.events.append(event)

    def things(self) -> Mapping[str, str]:
        """File name to content: all that the providers made."""
        return {path.name: path.read_text() for path in sorted(self.world.iterdir())}

    def journal(self) -> list[dict[str, Any]]:
        """What the providers did since the last call, in order."""
        path = Path(f"{self.world}.journal")
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def done(self) -> list[str]:
        """`verb thing`, in the order in which they began, since the last call."""
        return [f"{line['verb']} {line['thing']}" for line in self.journal() if line["edge"] == "begin"]

    def steps(self) -> list[tuple[str, str]]:
        """Operation and name of the steps that were done, without what stayed the same, since the last call."""
        steps = [event.step for event in self.events if event.kind == "done" and event.step is not None]
        self.events.clear()
        return [(step.operation, step.name) for step in steps if step.operation != "same"]


def at_once(journal: list[dict[str, Any]]) -> int:
    """How many operations of a journal were under way at the same time, at most."""
    running = highest = 0
    for line in journal:
        running += 1 if line["edge"] == "begin" else -1
        highest = max(highest, running)
    return highest


def before(journal: list[dict[str, Any]], first: str, second: str) -> bool:
    """Whether one operation (`verb thing`) ended before another began."""
    ends = [index for index, line in enumerate(journal) if _is(line, first, "end")]
    begins = [index for index, line in enumerate(journal) if _is(line, second, "begin")]
    return ends[0] < begins[0]


def _is(line: dict[str, Any], operation: str, edge: str) -> bool:
    return f"{line['verb']} {line['thing']}" == operation and line["edge"] == edge


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["things", "runner", "labs.engines.embedded"])


def start(verb: str, stack: Stack, engine: str = "embedded", root: Path = Path("/nowhere")) -> BaseProcess:
    """An engine command in a process of its own; a server has everything imported, so that many are cheap."""
    process = PROCESSES.Process(target=run, args=(verb, stack, engine, root))
    process.start()
    return process


def wait_for(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Poll a condition; the engine's own waits are what is tested."""
    until(lambda: (condition() or None, "not yet"), what=what, timeout=timeout, interval=0.01)
