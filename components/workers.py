"""Who takes tasks from which queues, as data."""

from __future__ import annotations

from dataclasses import dataclass

from labs.errors import UsageError


def _check_queues(owner: str, queues: tuple[str, ...]) -> None:
    if not queues or not all(queues):
        raise UsageError(f"{owner}.queues is {queues}: name at least one queue")


@dataclass(frozen=True)
class Workers:
    """Workers of one kind, as data.

    Attributes:
        queues: that they take tasks from.
        concurrency: how many tasks one of them runs at once.
        replicas: how many of them.
        prefetch: how many messages one takes beyond those that it runs, per slot (`worker_prefetch_multiplier`).
        autoscale: largest and smallest pool instead of `concurrency`.

    Raises:
        UsageError: it would run nothing; names the argument.
    """

    queues: tuple[str, ...]
    concurrency: int = 1
    replicas: int = 1
    prefetch: int = 1
    autoscale: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_queues("Workers", self.queues)
        for argument in ("concurrency", "replicas", "prefetch"):
            if getattr(self, argument) < 1:
                raise UsageError(f"Workers.{argument} is {getattr(self, argument)}: it takes 1 or more")
        if self.autoscale and not self.autoscale[0] >= self.autoscale[1] >= 1:
            raise UsageError(f"Workers.autoscale is {self.autoscale}: give the largest size, then the smallest")


@dataclass(frozen=True)
class Site:
    """A site, as data.

    Attributes:
        queues: that its worker takes tasks from.
        concurrency: how many tasks it runs at once.

    Raises:
        UsageError: it would run nothing; names the argument.
    """

    queues: tuple[str, ...]
    concurrency: int = 1

    def __post_init__(self) -> None:
        _check_queues("Site", self.queues)
        if self.concurrency < 1:
            raise UsageError(f"Site.concurrency is {self.concurrency}: it takes 1 or more")
