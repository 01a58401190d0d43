"""Property values: on the wire (protobuf), in memory, and as a provider sees them.

In memory a value is what JSON knows, plus two things of Pulumi's: `Secret` around a value that must never be
shown or stored in plain, and the SDK's `UNKNOWN` for what a preview cannot know. Numbers are floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2
from pulumi.output import UNKNOWN
from pulumi.runtime import rpc

Values = dict[str, Any]

_SIGNATURE, _SECRET = rpc._special_sig_key, rpc._special_secret_sig


@dataclass(frozen=True)
class Secret:
    """A value that is only ever stored encrypted."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


def transform(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A copy of `value` in which `leaf` replaced everything that is neither a mapping nor a list."""
    if isinstance(value, Mapping):
        return {str(key): transform(item, leaf) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [transform(item, leaf) for item in value]
    return leaf(value)


def decode(struct: struct_pb2.Struct) -> Values:
    """From the wire; properties without a value are left out, as everywhere in Pulumi's Python SDK."""
    fields = {key: _decode(value) for key, value in struct.fields.items()}
    return {key: value for key, value in fields.items() if value is not None}


def _decode(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        values = decode(value.struct_value)
        return Secret(reveal(values.get("value"))) if values.get(_SIGNATURE) == _SECRET else values
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "null_value" or kind is None:
        return None
    found = getattr(value, kind)
    return UNKNOWN if found == rpc.UNKNOWN else found


def encode(values: Values) -> struct_pb2.Struct:
    """To the wire."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Secret):
            return {_SIGNATURE: _SECRET, "value": transform(value.value, leaf)}
        return rpc.UNKNOWN if value is UNKNOWN else value

    struct = struct_pb2.Struct()
    struct.update(transform(values, leaf))
    return struct


def reveal(value: Any) -> Any:
    """A copy with every secret in plain: what providers work with."""
    return transform(value, lambda leaf: reveal(leaf.value) if isinstance(leaf, Secret) else leaf)


def plain_outputs(values: Values) -> Values:
    """What a program exported: secrets in plain, whole numbers as integers, as the Pulumi CLI prints them."""
    found: Values = transform(
        reveal(values), lambda leaf: int(leaf) if isinstance(leaf, float) and leaf.is_integer() else leaf
    )
    return found


def from_provider(value: Any) -> Any:
    """Check and normalise what a provider returned: numbers become floats, absent properties go.

    Raises:
        TypeError: for what JSON does not know.
    """

    def leaf(found: Any) -> Any:
        if found is None or found is UNKNOWN or isinstance(found, (bool, str)):
            return found
        if isinstance(found, (int, float)):
            return float(found)
        raise TypeError(f"a provider returned a value of type {type(found).__name__}, which no checkpoint can hold")

    return transform(value, leaf)


def keep_secret(outputs: Values, inputs: Values) -> Values:
    """`outputs` in which everything is secret whose input of the same name is.

    Pulumi's rule for providers that know nothing of secrets.
    """
    marked = dict(outputs)
    for key, given in inputs.items():
        if key not in outputs:
            continue
        if isinstance(outputs[key], dict) and isinstance(given, dict):
            marked[key] = keep_secret(outputs[key], given)
        elif not isinstance(outputs[key], Secret) and contains(given, lambda leaf: isinstance(leaf, Secret)):
            marked[key] = Secret(reveal(outputs[key]))
    return marked


def contains(value: Any, wanted: Callable[[Any], bool]) -> bool:
    """Whether a leaf of `value` (a secret counts as one, and is looked into) is `wanted`."""
    if isinstance(value, Mapping):
        return any(contains(item, wanted) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(contains(item, wanted) for item in value)
    return wanted(value) or (isinstance(value, Secret) and contains(value.value, wanted))


def has_unknown(value: Any) -> bool:
    """Whether anything in `value` is only known after an `up`."""
    return contains(value, lambda leaf: leaf is UNKNOWN)
