"""How many replicas of a service an autoscaler keeps, as data."""

from __future__ import annotations

from dataclasses import dataclass

from labs.errors import UsageError

BY = ("cpu", "tasks")
"""What may be looked at."""


@dataclass(frozen=True)
class Autoscaling:
    """The bounds of an autoscaler, and what it looks at.

    Attributes:
        most: replicas at most.
        least: replicas at least; none where tasks are counted.
        by: `cpu`, which metrics-server measures; or `tasks`, those that wait or run, which KEDA counts.
        cpu: thousandths of a CPU that a replica is to use on average. It is no share of what a replica asks for, which
            in a lab is next to nothing.

    Raises:
        UsageError: no number of replicas could meet it; names the argument.
    """

    most: int = 0
    least: int = 1
    by: str = "cpu"
    cpu: int = 500

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise UsageError(f"Autoscaling.by is {self.by!r}: use {' or '.join(BY)}")
        lowest = {"least": 0 if self.by == "tasks" else 1}
        for name in ("most", "least", "cpu"):
            value, smallest = getattr(self, name), lowest.get(name, 1)
            if not isinstance(value, int) or value < smallest:  # a configuration may give anything
                raise UsageError(f"Autoscaling.{name} is {value!r}: it takes a number, {smallest} or more")
        if self.least > self.most:
            raise UsageError(
                f"Autoscaling.least is {self.least}, more than the {self.most} of Autoscaling.most: give less, or more"
            )
