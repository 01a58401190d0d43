"""What a lab's program declares, without making any of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labs.engines.base import PROJECT, Event, Stack, name_of, type_of
from labs.engines.embedded import EmbeddedEngine
from labs.engines.providers import Difference
from labs.engines.values import Values
from labs.paths import PROJECT_ROOT


@dataclass
class Pretender:
    """Takes every resource, makes none of them, and remembers their inputs by type and name."""

    made: dict[tuple[str, str], Values] = field(default_factory=dict)

    def given(self, name: str, news: Values) -> Mapping[str, Values]:
        """By type, what a resource of that name would have been given."""
        return {}

    def check(self, urn: str, olds: Values, news: Values) -> Values:
        return news

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        return Difference()

    def create(self, urn: str, news: Values) -> tuple[str, Values]:
        kind, name = type_of(urn).rpartition(":")[2], name_of(urn)
        self.made[kind, name] = news
        return name, {**news, **self.given(name, news).get(kind, {})}

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        return news

    def delete(self, urn: str, id: str, outputs: Values) -> None:
        pass


def outputs_of(
    lab: str, platform: str, pretender: Pretender, folder: Path, extras: Sequence[str] = (), **more: str
) -> dict[str, Any]:
    """What the program of a lab gives out when `pretender` makes its resources.

    Args:
        more: of the stack's configuration.
    """
    engine = EmbeddedEngine()
    engine._registry = lambda _stack: {"*": pretender}  # type: ignore[method-assign]
    config = {f"{PROJECT}:lab": lab, f"{PROJECT}:platform": platform, f"{PROJECT}:extras": json.dumps(list(extras))}
    config |= {f"{PROJECT}:{key}": value for key, value in more.items()}

    def watch(_event: Event) -> None:
        """Nobody watches."""

    return dict(engine.up(Stack(f"{lab}-declared", PROJECT_ROOT / "stacks", config, folder / "e"), watch))
