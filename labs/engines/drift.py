"""Drift: what somebody changed of a real thing, beside the program that made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labs.engines.values import Secret, plain_outputs

MISSING = object()
"""In place of a value that is not there."""

TOLD = 3
"""Fields of one object that are told of; of others, how many."""

LONGEST = 60
"""Letters of a value that is shown."""


@dataclass(frozen=True)
class Drift:
    """One field that is not as it was applied.

    Attributes:
        path: keys that lead to it, items of a list by their name or number; empty for the whole thing.
        found: its value, `MISSING` where there is none.
        wanted: the value that was applied.
    """

    path: tuple[str, ...] = ()
    found: Any = MISSING
    wanted: Any = MISSING


def drifts(found: Any, wanted: Any, path: tuple[str, ...] = ()) -> Iterator[Drift]:
    """The fields in which a thing differs from what it is to be, outermost first.

    >>> [".".join(drift.path) for drift in drifts({"a": [{"name": "x", "v": 1}]}, {"a": [{"name": "x", "v": 2}]})]
    ['a.x.v']
    """
    if found == wanted:
        return
    there, asked = _keyed(found), _keyed(wanted)
    if there is None or asked is None:
        yield Drift(path, found, wanted)
        return
    for key in [*asked, *(key for key in there if key not in asked)]:
        yield from drifts(there.get(key, MISSING), asked.get(key, MISSING), (*path, key))


def told(changes: Sequence[Drift], inputs: Mapping[str, Any]) -> str:
    """What has drifted, in words, and never a secret: `drift: spec.replicas is 3, not 1`.

    Args:
        inputs: what the program gave, secrets marked.
    """
    said = [_told(each, inputs) for each in changes[:TOLD]]
    more = [f"{len(changes) - TOLD} more"] if len(changes) > TOLD else []
    return f"drift: {', '.join([*said, *more])}" if said else ""


def _told(drift: Drift, inputs: Mapping[str, Any]) -> str:
    if not drift.path:
        return "it is gone" if drift.found is MISSING else "somebody made it anew"
    path = ".".join(drift.path)
    if drift.found is MISSING:
        return f"{path} is gone"
    if drift.wanted is MISSING:
        return f"{path} was added"
    if _hidden(drift.path, inputs) or not (_short(drift.found) and _short(drift.wanted)):
        return f"{path} is another"
    return f"{path} is {_text(drift.found)}, not {_text(drift.wanted)}"


def _keyed(value: Any) -> Mapping[str, Any] | None:
    """What is in a mapping or a list, by key; None where there is nothing to look into."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list):
        return None
    names = [str(item.get("name", "")) if isinstance(item, Mapping) else "" for item in value]
    if all(names) and len(set(names)) == len(names):
        return dict(zip(names, value, strict=True))
    return {str(number): item for number, item in enumerate(value)}


def _hidden(path: Sequence[str], inputs: Any) -> bool:
    """Whether what the program gave there is a secret, or part of one."""
    for key in path:
        if isinstance(inputs, Secret):
            return True
        inputs = (_keyed(inputs) or {}).get(key)
    return isinstance(inputs, Secret)


def _short(value: Any) -> bool:
    return not isinstance(value, (Mapping, list)) and len(_text(value)) <= LONGEST


def _text(value: Any) -> str:
    """
    >>> _text(True), _text(1.0), _text("a")
    ('true', '1', 'a')
    """
    plain = plain_outputs({"": value})[""]
    return str(plain).lower() if isinstance(plain, bool) else str(plain)
