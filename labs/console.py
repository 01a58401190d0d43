"""What a user watches: steps with elapsed time on a terminal, one plain line each elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from labs.engines.base import Event, Step, Watcher

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

DONE = {
    "create": "made",
    "update": "changed",
    "replace": "replaced",
    "delete": "removed",
    "same": "unchanged",
}
DOING = {
    "create": "making",
    "update": "changing",
    "replace": "replacing",
    "delete": "removing",
    "same": "checking",
}


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `0.4 s`, `12 s`, `2 min 05 s`."""
    if seconds >= 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


@contextlib.contextmanager
def watching(title: str, quiet: bool = False) -> Iterator[Watcher]:
    """Show the events of one operation on standard error, which leaves standard output to results."""
    begun = time.monotonic()
    if quiet:
        yield lambda _event: None
        return
    if err.is_terminal:
        with _live(title) as watch:
            yield watch
    else:
        err.print(f"{title} …")
        yield _plain
    err.print(f"{title}: {duration(time.monotonic() - begun)}", style="bold")


def is_change(step: Step) -> bool:
    """Whether something is really made or changed: components and the stack itself only group other resources."""
    return step.operation != "same" and not step.type.startswith(("labs:", "pulumi:pulumi:"))


def _interesting(event: Event) -> bool:
    return event.step is not None and is_change(event.step)


def _finished(event: Event) -> str:
    assert event.step
    if event.kind == "failed":
        return f"  [red]✗[/] {event.step.name} failed after {duration(event.seconds)}"
    why = (
        f", {escape(event.step.reason)}" if event.step.operation in ("update", "replace") and event.step.reason else ""
    )
    return f"  [green]✓[/] {event.step.name} {DONE[event.step.operation]} [dim]{duration(event.seconds)}{why}[/]"


def _plain(event: Event) -> None:
    if event.kind == "message":
        err.print(f"  {event.message}", markup=False)
    elif event.kind != "start" and _interesting(event):
        err.print(_finished(event))


@contextlib.contextmanager
def _live(title: str) -> Iterator[Watcher]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        tasks = {"": progress.add_task(f"[bold]{title}")}

        def watch(event: Event) -> None:
            if event.kind == "start" and event.step and _interesting(event):
                tasks[event.step.urn] = progress.add_task(f"  {DOING[event.step.operation]} {event.step.name}")
                return
            if event.step and event.step.urn in tasks:
                progress.remove_task(tasks.pop(event.step.urn))
            _plain(event)

        yield watch
