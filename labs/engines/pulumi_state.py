"""The state that the Pulumi CLI exports: its values in plain, and what a killed or failed command left half done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pulumi.runtime import rpc

from labs.engines.providers import DynamicProvider
from labs.engines.values import Values, from_provider

State = Mapping[str, Any]


def plain(value: Any) -> Any:
    """A value of a state that was exported with its secrets."""
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
            return json.loads(value["plaintext"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def properties(resource: State) -> Values:
    """What its provider is asked to delete: the outputs, or the inputs of what was never finished."""
    values: Values = from_provider(plain(resource.get("outputs") or resource["inputs"]))
    return values


def half_done(state: State) -> list[State]:
    """Resources of dynamic providers that nobody finished to make or to delete; users before what they use."""
    pending = [
        item["resource"] for item in state.get("pending_operations") or () if item["type"] in ("creating", "deleting")
    ]
    replaced = [item for item in state.get("resources") or () if item.get("delete")]
    return [item for item in (*pending, *reversed(replaced)) if fnmatchcase(item["type"], DynamicProvider.PATTERN)]


def without(state: State, gone: Iterable[State]) -> State:
    """The state without these resources, and without updates that did not end: they are simply done again."""
    keys = {_key(item) for item in gone}
    resources = [item for item in state["resources"] if _key(item) not in keys]
    left = {item["urn"] for item in resources}
    pending = [
        item
        for item in state.get("pending_operations") or ()
        if item["type"] != "updating" and _key(item["resource"]) not in keys
    ]
    return {**state, "resources": [_forget(item, left) for item in resources], "pending_operations": pending}


def _key(resource: State) -> tuple[str, str | None, bool]:
    return resource["urn"], resource.get("id"), resource.get("delete", False)


def _forget(resource: State, left: set[str]) -> State:
    """The resource without what it names that is no longer there, such as what was deleted before its users."""
    needs = resource.get("propertyDependencies") or {}
    return {
        **resource,
        "dependencies": [urn for urn in resource.get("dependencies") or () if urn in left],
        "propertyDependencies": {key: [urn for urn in urns or () if urn in left] for key, urns in needs.items()},
    }
