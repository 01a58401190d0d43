"""Who runs and who talks to whom, drawn from a lab's outputs.

Columns from left to right: where tasks run, how they get there, what decides, what remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labs.report.markup import Element, el, short
from stacks.catalogue import class_name

WIDTH, GAP = 212.0, 77.0
COLUMNS = tuple(k * (WIDTH + GAP) + 1 for k in range(4))
LINE, PAD = 16.0, 12.0
MOST_LINES = 6


@dataclass(frozen=True)
class Box:
    """One role with its replicas; `y` is its top edge."""

    title: str
    lines: tuple[str, ...]
    kind: str
    column: int
    y: float

    @property
    def height(self) -> float:
        return PAD * 2 + 14 + LINE * len(self.lines)

    @property
    def x(self) -> float:
        return COLUMNS[self.column]

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def side(self, right: bool, share: float = 0.5) -> tuple[float, float]:
        """A point on the left or right edge, `share` of the way down."""
        return (self.x + WIDTH * right, self.y + self.height * share)


@dataclass(frozen=True)
class Backend:
    """How one executor gets tasks to where they run."""

    title: str
    roles: tuple[str, ...]
    between: str = ""
    between_roles: tuple[str, ...] = ()


BACKENDS = {
    "LocalExecutor": Backend("Task processes", ()),
    "CeleryExecutor": Backend("Celery workers", ("celery",), "Message broker", ("broker", "redis", "rabbitmq")),
    "KubernetesExecutor": Backend("Task pods", (), "Kubernetes API"),
    "EdgeExecutor": Backend("Edge workers", ("edge",)),
}
CONTROL = (("scheduler", "Scheduler"), ("triggerer", "Triggerer"), ("dag-processor", "DAG processor"))


def topology(outputs: Mapping[str, Any]) -> Element:
    """The drawing of a lab, whatever its executors."""
    services: dict[str, Sequence[Mapping[str, Any]]] = dict(outputs["services"])

    def take(*names: str) -> list[Mapping[str, Any]]:
        """The replicas of all roles whose name has one of these words, each role once."""
        roles = [role for role in services if any(name in role for name in names)]
        return [replica for role in roles for replica in services.pop(role)]

    boxes: list[Box] = []
    edges: list[Element] = []

    def box(title: str, lines: Sequence[str], kind: str, column: int, y: float) -> Box:
        boxes.append(Box(title, tuple(lines), kind, column, y))
        return boxes[-1]

    api = box("API server", _lines(take("load-balancer", "api-server")), "control", 1, 1)
    people = box("People and programs", ["browser, REST API, verifiers"], "people", 0, 1)
    edges.append(_edge(people.side(True), (api.x, people.side(True)[1]), "UI, REST"))

    y = api.bottom + 34
    control: dict[str, Box] = {}
    for role, title in CONTROL:
        control[role] = box(title, _lines(take(role)), "control", 2, y)
        y = control[role].bottom + 14

    y = api.bottom + 34
    executors = map(class_name, outputs["executors"])
    known = [(name, BACKENDS[name]) for name in executors if name in BACKENDS]
    claimed = {name: take(*backend.roles) if backend.roles else [] for name, backend in known}
    for name, replicas in claimed.items():
        if not replicas and BACKENDS[name].roles:  # a lab with one kind of worker need not say which
            replicas += take("worker")
    between = {name: take(*backend.between_roles) if backend.between_roles else [] for name, backend in known}
    first_up = control["scheduler"]
    for position, (name, backend) in enumerate(known):
        lines = _lines(claimed[name]) or [_slots(name, outputs), name]
        work = box(backend.title, lines, "work", 0, y)
        start = first_up.side(False, 0.3 + 0.4 * position / max(1, len(known) - 1) if len(known) > 1 else 0.5)
        target = work.side(True, 0.68)
        y = work.bottom + 16
        if backend.between:
            broker = box(backend.between, _lines(between[name]) or ["of the cluster"], "storage", 1, work.y)
            edges.append(_edge(start, broker.side(True), "queues" if name == "CeleryExecutor" else "creates"))
            celery = name == "CeleryExecutor"
            ends = (target, broker.side(False)) if celery else (broker.side(False), target)
            edges.append(_edge(*ends, "takes" if celery else "runs"))
            y = max(y, broker.bottom + 16)
        elif name == "LocalExecutor":
            edges.append(_edge(start, target, "forks"))
        asks = "polls, reports" if name == "EdgeExecutor" else "reports"
        edges.append(_edge(work.side(True, 0.3), api.side(False, 0.8), asks if position == 0 else ""))

    lowest = control["dag-processor"]
    database = box(
        "Metadata database", _lines(take("metadata-database", "database", "postgres", "pgbouncer")), "storage", 3, 1
    )
    tall = lowest.y + 30 - database.y
    edges.append(_edge(api.side(True, 0.5), (database.x, api.side(True, 0.5)[1]), ""))
    for role in control:
        middle = control[role].side(True, 0.35 if role == "dag-processor" else 0.5)
        edges.append(_edge(middle, (database.x, min(middle[1], database.y + tall - 6)), ""))
    folder = box("DAG folder", [_path(outputs)], "storage", 3, lowest.y + 44)
    edges.append(_edge(lowest.side(True, 0.8), folder.side(False), "reads"))

    bottom = max(b.bottom for b in boxes) + 18
    for k, role in enumerate(list(services)):  # whatever else the lab runs
        box(role.replace("-", " ").capitalize(), _lines(take(role)), "other", k % 4, bottom + 90 * (k // 4))
    height = max(b.bottom for b in boxes) + 2
    return el(
        "svg",
        el("title", "Who runs in this lab and who talks to whom"),
        el("defs", _arrow_head()),
        *edges,
        *(_draw(b, tall if b is database else b.height) for b in boxes),
        viewBox=f"0 0 {COLUMNS[3] + WIDTH + 1:.0f} {height:.0f}",
        class_="topology",
        role="img",
    )


def _lines(replicas: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per replica: its name where there are several, its queues, where it answers; none for nothing."""
    found = []
    for replica in replicas:
        parts = [str(replica["name"])] if len(replicas) > 1 else []
        parts += [", ".join(replica.get("queues", ()))] if replica.get("queues") else []
        parts += [str(where) for where in replica.get("endpoints", {}).values()]
        found.append(" · ".join(parts))
    found = [line for line in found if line]
    more = len(found) - MOST_LINES
    return found if more <= 0 else [*found[: MOST_LINES - 1], f"and {more + 1} more"]


def _slots(executor: str, outputs: Mapping[str, Any]) -> str:
    if executor == "KubernetesExecutor":
        return "one pod per task"
    parallelism = outputs.get("options", {}).get("core.parallelism")
    schedulers = len(outputs["services"].get("scheduler", [1]))
    each = " per scheduler" if schedulers > 1 else ""
    return f"up to {parallelism} at once{each}" if parallelism else "one process per task"


def _path(outputs: Mapping[str, Any]) -> str:
    return str(outputs.get("paths", {}).get("dags", "")) or "in every component"


def _draw(box: Box, height: float) -> Element:
    return el(
        "g",
        el("rect", x=box.x, y=box.y, width=WIDTH, height=height, rx=9, class_="box"),
        el("rect", x=box.x, y=box.y + 10, width=3.5, height=height - 20, rx=1.7, class_=f"stripe {box.kind}"),
        el("text", box.title, x=box.x + 16, y=box.y + PAD + 12, class_="name"),
        *(
            el("text", short(line, 28), el("title", line), x=box.x + 16, y=box.y + PAD + 15 + LINE * (k + 1))
            for k, line in enumerate(box.lines)
        ),
        class_="role",
    )


def _edge(start: tuple[float, float], end: tuple[float, float], label: str) -> Element:
    (x1, y1), (x2, y2) = start, end
    bend = max(24.0, abs(x2 - x1) / 2) * (1 if x2 > x1 else -1)
    path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    text = el("text", label, x=(x1 + x2) / 2, y=(y1 + y2) / 2 - 5, text_anchor="middle") if label else None
    return el("g", el("path", d=path, marker_end="url(#arrow)"), text, class_="edge")


def _arrow_head() -> Element:
    return el(
        "marker",
        el("path", d="M0 0L8 4L0 8Z"),
        id="arrow", viewBox="0 0 8 8", refX=8, refY=4, markerWidth=7, markerHeight=7, orient="auto",
    )  # fmt: skip
