"""What the Pulumi CLI reports, in this project's words: steps, events, and the one sentence of a failure."""

from __future__ import annotations

import re
import time
from typing import Literal

from pulumi import automation
from pulumi.automation import events
from pulumi.automation.events import OpType

from labs import errors
from labs.engines.base import Event, Operation, Step, Watcher, name_of
from labs.engines.deployment import because, changed_keys
from labs.errors import LabError

_OPERATIONS: dict[OpType, Operation] = {
    OpType.SAME: "same",
    OpType.CREATE: "create",
    OpType.UPDATE: "update",
    OpType.DELETE: "delete",
    OpType.CREATE_REPLACEMENT: "replace",
    OpType.DELETE_REPLACED: "delete",
}

_COLOUR = re.compile(r"<\{%.*?%\}>")
_ERROR = re.compile(r"\berror: (.*)")
_CHAINED = re.compile(
    r"\n\n(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n\n"
)
_TRACEBACK = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ ][^\n]*\n)*(?P<kind>[\w.]+)(?:: (?P<text>.*))?", re.M | re.S
)


class Watching:
    """Listens to the engine events of one CLI run.

    Args:
        watch: told of each step and message.
        gone: why a resource is deleted that is not replaced.
    """

    def __init__(self, watch: Watcher, gone: str) -> None:
        self.steps: list[Step] = []
        self._watch = watch
        self._gone = gone
        self._began: dict[tuple[str, OpType], float] = {}
        self._failed: list[str] = []
        self._errors: list[tuple[str, str]] = []

    def __call__(self, event: events.EngineEvent) -> None:
        if event.resource_pre_event:
            metadata = event.resource_pre_event.metadata
            if step := self._step(metadata):
                self.steps.append(step)
                self._began[metadata.urn, metadata.op] = time.monotonic()
                if step.operation != "same":
                    self._watch(Event("start", step))
        elif event.res_outputs_event:
            self._end("done", event.res_outputs_event.metadata)
        elif event.res_op_failed_event:
            self._failed.append(name_of(event.res_op_failed_event.metadata.urn))
            self._end("failed", event.res_op_failed_event.metadata)
        elif event.diagnostic_event:
            found = event.diagnostic_event
            text = _COLOUR.sub("", found.message).strip()
            if found.severity == "error":
                self._errors.append((found.urn or "", text))
            elif found.severity != "debug" and text and not self._errors:  # after one: tracebacks of the cancelled
                self._watch(Event("message", message=text))

    def failure(self, error: automation.CommandError) -> LabError:
        """The error for the user after the CLI failed: what the provider or the program raised, if it did."""
        for urn, message in self._errors:
            if (raised := _raised(message)) is not None:
                kind, text = raised
                others = [name for name in self._failed if name != name_of(urn)]
                also = f"; also failed: {', '.join(others)}" if others else ""
                if kind.startswith("labs."):
                    own = getattr(errors, kind.rpartition(".")[2], LabError)
                    return own(text + also)
                what = f"{name_of(urn)} failed" if urn else "the program failed"
                return LabError(f"{what}: {kind}: {text}{also}")
        said = [message for _, message in self._errors] or _ERROR.findall(str(error)) or [str(error).strip()]
        return LabError(f"the Pulumi CLI failed: {said[0]}")

    def _end(self, kind: Literal["done", "failed"], metadata: events.StepEventMetadata) -> None:
        if step := self._step(metadata):
            began = self._began.get((metadata.urn, metadata.op), time.monotonic())
            self._watch(Event(kind, step, time.monotonic() - began))

    def _step(self, metadata: events.StepEventMetadata) -> Step | None:
        operation = _OPERATIONS.get(metadata.op)
        if operation is None or metadata.type.startswith("pulumi:providers:"):
            return None  # logical steps, and the plugins that the CLI adds by itself
        return Step(operation, metadata.type, name_of(metadata.urn), metadata.urn, self._reason(metadata))

    def _reason(self, metadata: events.StepEventMetadata) -> str:
        if metadata.op is OpType.CREATE:
            return "new"
        if metadata.op is OpType.DELETE:
            return self._gone
        if metadata.op is OpType.DELETE_REPLACED:
            return "replaced"
        if metadata.op is OpType.SAME or metadata.old is None or metadata.new is None:
            return ""
        keys = metadata.keys or metadata.diffs or changed_keys(metadata.old.inputs or {}, metadata.new.inputs or {})
        return because(keys) or "a secret changed"  # the CLI masks secrets, so that they look the same


def _raised(message: str) -> tuple[str, str] | None:
    """Type and text of the exception whose traceback a message holds, of the last one when they are chained."""
    found = _TRACEBACK.search(_CHAINED.split(message)[-1])
    return None if found is None else (found["kind"], (found["text"] or "").strip())
