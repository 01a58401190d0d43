"""Task instances over time: one row per process, grouped by worker, and how many ran at once below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from labs.report.markup import Element, el, short
from labs.runs import TaskInstance

WIDTH = 1080.0
ROW, HEAD, STRIP = 22.0, 26.0, 54.0
READABLE = 40
"""Up to so many rows carry their own text; more are drawn thin, with tooltips."""

HUES = {
    "success": "good",
    "failed": "bad",
    "upstream_failed": "bad",
    "up_for_retry": "warn",
    "up_for_reschedule": "warn",
    "deferred": "warn",
    "running": "live",
    "restarting": "warn",
}


def timeline(instances: Sequence[TaskInstance]) -> Element | None:
    """The drawing, or None when no instance was even queued."""
    drawn = [ti for ti in instances if ti.queued or ti.started]
    return _Timeline(drawn).draw() if drawn else None


class _Timeline:
    def __init__(self, instances: list[TaskInstance]) -> None:
        self.instances = sorted(instances, key=lambda ti: (ti.hostname == "", ti.hostname, _first(ti)))
        self.start = min(_first(ti) for ti in instances)
        last = max(t for ti in instances for t in (ti.ended, ti.started, ti.queued) if t)
        self.seconds = max((last - self.start).total_seconds(), 0.1)
        self.thin = len(instances) > READABLE
        self.row = max(2.0, min(9.0, 600 / len(instances))) if self.thin else ROW
        self.left = 66.0 if self.thin else 230.0
        self.right = WIDTH - (40.0 if self.thin else 210.0)

    def x(self, moment: datetime) -> float:
        return self.left + (self.right - self.left) * (moment - self.start).total_seconds() / self.seconds

    def draw(self) -> Element:
        rows: list[Element] = []
        y = 24.0
        for host, group in groupby(self.instances, key=lambda ti: ti.hostname):
            here = list(group)
            rows.append(self._host(host, here, y))
            y += HEAD
            for ti in here:
                rows.append(self._task(ti, y))
                y += self.row
            y += 6
        strip = self._at_once(y + 8)
        height = y + 8 + (STRIP + 12 if strip is not None else 0)
        return el(
            "svg",
            el("title", f"{len(self.instances)} task instances over {self.seconds:.1f} seconds"),
            *self._axis(y),
            *rows,
            strip,
            viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
            class_="timeline",
            role="img",
        )

    def _axis(self, bottom: float) -> Iterator[Element]:
        step = _nice(self.seconds / 7)
        for k in range(int(self.seconds / step) + 1):
            at = self.left + (self.right - self.left) * k * step / self.seconds
            label = f"{k * step:g} s"
            yield el("line", x1=at, x2=at, y1=18, y2=bottom, class_="grid")
            yield el("text", label, x=at, y=12, class_="tick", text_anchor="middle")

    def _host(self, host: str, instances: list[TaskInstance], y: float) -> Element:
        processes = len({ti.pid for ti in instances if ti.pid is not None})
        what = f"{processes} process{'es' * (processes != 1)}" if host else f"{len(instances)} never started"
        return el(
            "g",
            el("line", x1=0, x2=WIDTH, y1=y, y2=y, class_="rule"),
            el("text", el("tspan", host or "no worker", class_="host"), f"  {what}", x=0, y=y + 17),
        )

    def _task(self, ti: TaskInstance, y: float) -> Element:
        height = self.row - (0.5 if self.thin else 6)
        top = y + (0 if self.thin else 3)
        hue = HUES.get(ti.state or "", "none")
        bars = []
        begun = ti.started or self._last()
        if ti.queued and begun > ti.queued:
            bars.append(self._bar(ti.queued, begun, top, height, f"queued {hue}"))
        if ti.started:
            bars.append(self._bar(ti.started, ti.ended or self._last(), top, height, f"ran {hue}"))
        if self.thin:
            return el("g", el("title", _words(ti)), *bars)
        base = y + ROW / 2 + 4
        name = ti.label + (f" · try {ti.try_number}" if ti.try_number > 1 else "")
        pid = f"pid {ti.pid}" if ti.pid is not None else ""
        return el(
            "g",
            el("title", _words(ti)),
            el("text", short(name, 21), x=0, y=base),
            el("text", pid, x=self.left - 14, y=base, text_anchor="end", class_="soft"),
            *bars,
            el("text", *self._outcome(ti), x=self.right + 14, y=base),
        )

    def _outcome(self, ti: TaskInstance) -> Iterator[Element | str]:
        yield el("tspan", f"{ti.state or 'no state'}", class_=f"state {HUES.get(ti.state or '', 'none')}")
        if ti.seconds is not None:
            yield f" {ti.seconds:.1f} s"
        if ti.queued and ti.started and (wait := (ti.started - ti.queued).total_seconds()) >= 0.05:
            yield el("tspan", f"  queued {wait:.1f} s", class_="soft")

    def _bar(self, begin: datetime, end: datetime, top: float, height: float, class_: str) -> Element:
        x = self.x(begin)
        width = max(self.x(end) - x, 1.5)
        return el("rect", x=x, y=top, width=width, height=height, rx=min(3.0, height / 3), class_=class_)

    def _at_once(self, top: float) -> Element | None:
        """How many ran at once, as steps over the same time."""
        ran = [(ti.started, ti.ended or self._last()) for ti in self.instances if ti.started]
        if not ran:
            return None
        changes = sorted((t, step) for begin, end in ran for t, step in ((begin, 1), (end, -1)))
        counts, running = [], 0
        for moment, step in changes:
            running += step
            counts.append((moment, running))
        most = max(n for _, n in counts)  # 0 when all ended as they started
        floor, scale = top + STRIP - 8, (STRIP - 16) / max(most, 1)
        path = f"M{self.left:.1f} {floor:.1f}"
        for moment, n in counts:
            path += f"H{self.x(moment):.1f}V{floor - n * scale:.1f}"
        path += f"H{self.right:.1f}V{floor:.1f}Z"
        return el(
            "g",
            el("line", x1=self.left, x2=self.right, y1=floor, y2=floor, class_="rule"),
            el("path", d=path, class_="at-once"),
            el("text", "running" if self.thin else "running at once", x=0, y=floor - 4, class_="soft"),
            el("text", f"at most {most}", x=self.right + 14, y=floor - 4) if not self.thin else None,
            el("text", f"at most {most}", x=self.left, y=top + 2) if self.thin else None,
        )

    def _last(self) -> datetime:
        return max(t for ti in self.instances for t in (ti.ended, ti.started, ti.queued) if t)


def _first(ti: TaskInstance) -> datetime:
    moment = ti.queued or ti.started
    assert moment is not None
    return moment


def _words(ti: TaskInstance) -> str:
    where = f"{ti.hostname} pid {ti.pid}" if ti.hostname else "no worker"
    ran = f", ran {ti.seconds:.2f} s" if ti.seconds is not None else ""
    waited = f", queued {(ti.started - ti.queued).total_seconds():.2f} s" if ti.started and ti.queued else ""
    return f"{ti.dag_id} · {ti.label} · try {ti.try_number}: {ti.state or 'no state'} on {where}{waited}{ran}"


def _nice(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= step - 1e-9)
