"""Who takes tasks from which queues, as data."""

from __future__ import annotations

from dataclasses import dataclass

from labs.errors import UsageError

LONGEST = 300
"""Seconds that a task may last where nothing is said; the official chart gives a worker twice as long to end."""


def _check(owner: Workers | Site, *counts: str) -> None:
    name = type(owner).__name__
    if not owner.queues or not all(owner.queues):
        raise UsageError(f"{name}.queues is {owner.queues}: name at least one queue")
    for count in counts:
        value = getattr(owner, count)
        if not isinstance(value, int) or value < 1:  # a configuration may give anything
            raise UsageError(f"{name}.{count} is {value!r}: it takes a number, 1 or more")


@dataclass(frozen=True)
class Workers:
    """Workers of one kind, as data.

    Attributes:
        queues: that they take tasks from.
        concurrency: how many tasks one of them runs at once.
        replicas: how many of them.
        prefetch: how many messages one takes beyond those that it runs, per slot (`worker_prefetch_multiplier`).
        autoscale: largest and smallest pool instead of `concurrency`.
        zone: where they should run, on a platform that has a zone of that name.
        longest: seconds that a task may last: a worker that is to go is given so long to end what it runs.

    Raises:
        UsageError: it would run nothing; names the argument.
    """

    queues: tuple[str, ...]
    concurrency: int = 1
    replicas: int = 1
    prefetch: int = 1
    autoscale: tuple[int, int] | None = None
    zone: str = ""
    longest: int = LONGEST

    def __post_init__(self) -> None:
        _check(self, "concurrency", "replicas", "prefetch", "longest")
        if self.autoscale is not None:
            try:
                largest, smallest = map(int, self.autoscale)
            except (TypeError, ValueError):
                largest, smallest = 0, 0
            if not largest >= smallest >= 1:
                raise UsageError(f"Workers.autoscale is {self.autoscale}: give the largest size, then the smallest")

    @property
    def slots(self) -> int:
        """How many tasks one of them runs at once, at most."""
        return self.autoscale[0] if self.autoscale else self.concurrency


@dataclass(frozen=True)
class Site:
    """A site, as data.

    Attributes:
        queues: that its worker takes tasks from.
        concurrency: how many tasks it runs at once.
        longest: seconds that a task may last: a worker that is to go is given so long to end what it runs.

    Raises:
        UsageError: it would run nothing; names the argument.
    """

    queues: tuple[str, ...]
    concurrency: int = 1
    longest: int = LONGEST

    def __post_init__(self) -> None:
        _check(self, "concurrency", "longest")
