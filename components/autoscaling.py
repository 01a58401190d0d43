"""How many replicas of a service an autoscaler keeps, as data."""

from __future__ import annotations

from dataclasses import dataclass

from labs.errors import UsageError


@dataclass(frozen=True)
class Autoscaling:
    """The bounds of an autoscaler, and what it looks at.

    Attributes:
        most: replicas at most.
        least: replicas at least.
        cpu: thousandths of a CPU that a replica is to use on average. It is no share of what a replica asks for, which
            in a lab is next to nothing.
        longest: seconds that a task may last: a worker that is to go is given so long to end what it runs.

    Raises:
        UsageError: no number of replicas could meet it; names the argument.
    """

    most: int = 0
    least: int = 1
    cpu: int = 500
    longest: int = 300

    def __post_init__(self) -> None:
        for name in ("most", "least", "cpu", "longest"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:  # a configuration may give anything
                raise UsageError(f"Autoscaling.{name} is {value!r}: it takes a number, 1 or more")
        if self.least > self.most:
            raise UsageError(
                f"Autoscaling.least is {self.least}, more than the {self.most} of Autoscaling.most: give less, or more"
            )
