"""Several services that do the same, as one component."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pulumi


def replica_names(name: str, count: int) -> list[str]:
    """The names of so many replicas: `scheduler` for one, `scheduler-1` and `scheduler-2` for two."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def all_facts(groups: Iterable[pulumi.Output[list[dict[str, Any]]]]) -> pulumi.Output[list[dict[str, Any]]]:
    """The facts of several services in one list."""
    return pulumi.Output.all(*groups).apply(lambda found: [fact for facts in found for fact in facts])
