"""Providers of the embedded engine: who creates, changes and deletes the resources of a type."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

import dill  # type: ignore[import-untyped]
from pulumi.dynamic import Config, ConfigureRequest, ResourceProvider
from pulumi.output import UNKNOWN
from pulumi.runtime._serialization import _deserialize

from labs.engines.base import PROJECT
from labs.engines.drift import Drift
from labs.engines.values import Values
from labs.errors import LabError, UsageError


@dataclass(frozen=True)
class Difference:
    """What a provider says about old outputs and new inputs.

    Attributes:
        changes: whether anything must be done; None lets the engine compare old and new inputs.
        replaces: the properties that cannot be changed in place.
        delete_before_replace: whether old and new cannot exist side by side.
        drift: what was changed beside the program, and is a change to be made, too.
    """

    changes: bool | None = None
    replaces: tuple[str, ...] = ()
    delete_before_replace: bool = False
    drift: tuple[Drift, ...] = ()


class Provider(Protocol):
    """Handles every resource of the types it is registered for.

    Values are plain: no secret wrappers, floats for numbers, `pulumi.output.UNKNOWN` in a preview.
    A provider is called from many threads at once. What it raises reaches the user; a `LabError` unchanged.

    Crash safety: an operation that began and whose end no engine lived to see is repeated. `create` therefore
    is idempotent, keyed by its inputs (it finishes what it half made before), and cleans up when it fails.
    `update` copes with an update half done. `delete` copes with what is already gone, and with a
    half-made thing: then `id` is "" and `outputs` are the inputs of the `create` that did not finish.
    """

    def check(self, urn: str, olds: Values, news: Values) -> Values:
        """The inputs to use: validated, defaults filled in; `olds` are the last ones, empty if it is new."""

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        """Compare the last outputs with new inputs."""

    def create(self, urn: str, news: Values) -> tuple[str, Values]:
        """Make it; returns its id and its outputs."""

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        """Change it from the last outputs to new inputs; returns the outputs."""

    def delete(self, urn: str, id: str, outputs: Values) -> None:
        """Remove it."""


@runtime_checkable
class Configurable(Protocol):
    """A provider that needs to know for whom it works, such as which cluster."""

    def configured(self, settings: Values) -> Provider:
        """The provider for these outputs of the provider resource; empty before there are any."""


Registry = Mapping[str, Provider]
"""Type-token pattern (`docker:*`) to provider; the first match wins."""


def find(providers: Registry, type_: str, settings: Values | None = None) -> Provider:
    """The provider of a type.

    Args:
        settings: outputs of the provider resource (`pulumi:providers:…`) that the program names for it.

    Raises:
        UsageError: when there is none, naming the type and what handles it.
    """
    for pattern, provider in providers.items():
        if fnmatchcase(type_, pattern):
            return provider.configured(settings or {}) if isinstance(provider, Configurable) else provider
    package = type_.split(":")[-1] if type_.startswith("pulumi:providers:") else type_.split(":")[0]
    raise UsageError(
        f"the embedded engine cannot make resources of type {type_}; install the Pulumi CLI, which "
        f"fetches the {package} provider, and use --engine pulumi"
    )


class DynamicProvider:
    """Pulumi's dynamic providers, called as `pulumi.dynamic.__main__` does: the implementation travels as a
    serialized object in the input `__provider`."""

    PATTERN = "pulumi-python:dynamic*"
    KEY = "__provider"

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = dict(config)
        self._loaded: dict[str, ResourceProvider] = {}
        self._lock = threading.Lock()

    def check(self, urn: str, olds: Values, news: Values) -> Values:
        result = self._load(news, olds).check(olds, dict(news))
        if result.failures:
            faults = "; ".join(f"{failure.property}: {failure.reason}" for failure in result.failures)
            raise UsageError(f"{urn.split('::')[-1]} was given inputs that it does not accept: {faults}")
        return {**result.inputs, self.KEY: news[self.KEY]}

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        result = self._load(news, olds).diff(id, olds, news)
        return Difference(result.changes, tuple(result.replaces or ()), bool(result.delete_before_replace))

    def create(self, urn: str, news: Values) -> tuple[str, Values]:
        result = self._load(news).create(news)
        return result.id, {**(result.outs or {}), self.KEY: news[self.KEY]}

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        result = self._load(news).update(id, olds, news)
        return {**(result.outs or {}), self.KEY: news[self.KEY]}

    def delete(self, urn: str, id: str, outputs: Values) -> None:
        self._load(outputs).delete(id, outputs)

    def _load(self, news: Values, olds: Values | None = None) -> ResourceProvider:
        text = news[self.KEY] if news[self.KEY] is not UNKNOWN or not olds else olds[self.KEY]
        with self._lock:
            if text not in self._loaded:
                try:
                    provider: ResourceProvider = _deserialize(lambda: dill.loads(base64.b64decode(text)))
                except (ImportError, AttributeError) as error:
                    raise LabError(
                        f"the code of a dynamic provider cannot be loaded ({error}); install the version "
                        "of the program that made the stack and run the command again"
                    ) from error
                provider.configure(ConfigureRequest(Config(self._config, PROJECT)))
                self._loaded[text] = provider
            return self._loaded[text]
