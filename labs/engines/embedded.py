"""The embedded engine: applies a Pulumi program in process, without the Pulumi CLI and its plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labs.engines.base import GOING_DOWN, ROOT_TYPE, Stack, Step, Watcher
from labs.engines.checkpoint import Checkpoint, Snapshot
from labs.engines.deployment import Deployment
from labs.engines.lock import stack_lock
from labs.engines.monitor import run_program
from labs.engines.providers import DynamicProvider, Provider, Registry
from labs.engines.values import plain_outputs
from labs.engines.workplace import absolute, as_program
from labs.errors import LabError
from labs.waiting import interruptible


class EmbeddedEngine:
    """See `labs.engines.base.Engine`.

    Args:
        providers: type-token pattern to provider, besides Pulumi's dynamic providers.
    """

    name = "embedded"

    def __init__(self, providers: Mapping[str, Provider] | None = None) -> None:
        self._providers = providers or {}

    def up(self, stack: Stack, watch: Watcher) -> Mapping[str, Any]:
        stack = absolute(stack)
        with stack_lock(stack, "up"), interruptible(), as_program(stack.program):
            checkpoint = Checkpoint(stack)
            snapshot = checkpoint.load() or Snapshot()
            deployment = Deployment(snapshot, self._registry(stack), checkpoint, watch)
            try:
                run_program(stack, deployment)
                deployment.finish()
            except LabError:
                if not snapshot.holds_anything:
                    checkpoint.remove()
                raise
        return _outputs(snapshot)

    def preview(self, stack: Stack) -> list[Step]:
        stack = absolute(stack)
        with interruptible(), as_program(stack.program):
            snapshot = Checkpoint(stack).load() or Snapshot()
            deployment = Deployment(snapshot, self._registry(stack), None, _ignore)
            run_program(stack, deployment)
            deployment.finish()
        return deployment.steps

    def down(self, stack: Stack, watch: Watcher) -> None:
        stack = absolute(stack)
        if not stack.directory.exists():
            return
        checkpoint = Checkpoint(stack)
        with stack_lock(stack, "down"), interruptible(), as_program(stack.program):
            snapshot = checkpoint.load()
            if snapshot is not None:
                Deployment(snapshot, self._registry(stack), checkpoint, watch).finish(GOING_DOWN)
            checkpoint.remove()

    def outputs(self, stack: Stack) -> Mapping[str, Any] | None:
        snapshot = Checkpoint(stack).load()
        return None if snapshot is None else _outputs(snapshot)

    def _registry(self, stack: Stack) -> Registry:
        return {DynamicProvider.PATTERN: DynamicProvider(stack.config), **self._providers}


def _outputs(snapshot: Snapshot) -> dict[str, Any]:
    for resource in snapshot.resources.values():
        if resource.type == ROOT_TYPE:
            return plain_outputs(resource.outputs)
    return {}


def _ignore(_: object) -> None:
    """Nobody watches a preview."""
