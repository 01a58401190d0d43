"""The contract of an engine, and the words both engines use to say what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

PROJECT = "airflow-labs"
"""The Pulumi project name: the prefix of every configuration key, and part of every URN."""

ROOT_TYPE = "pulumi:pulumi:Stack"
"""The type of the resource that is the stack itself and holds its outputs."""

UNWANTED = "no longer in the program"
GOING_DOWN = "the stack goes down"
"""Why a resource is deleted that nothing replaces."""

Operation = Literal["create", "update", "replace", "delete", "same"]


@dataclass(frozen=True)
class Stack:
    """One lab to be: a Pulumi program with its configuration.

    Attributes:
        name: stack name, which is the lab's name (`local`, `35.2`, or what `--name` says).
        program: the directory that holds the program's `__main__.py`.
        config: full keys (`airflow-labs:lab`) to values; structured values as JSON text, as in Pulumi.
        directory: where the engine keeps what it must remember about this stack; made when needed, mode 0700.
    """

    name: str
    program: Path
    config: Mapping[str, str]
    directory: Path


@dataclass(frozen=True)
class Step:
    """One operation on one resource, planned or under way.

    Attributes:
        reason: why, in words: "new", "command changed", "no longer in the program".
    """

    operation: Operation
    type: str
    name: str
    urn: str
    reason: str = ""


@dataclass(frozen=True)
class Event:
    """What a user may watch: a step that starts, ends or fails, or a message of the program.

    A step that finds everything the same is only `done`.
    """

    kind: Literal["start", "done", "failed", "message"]
    step: Step | None = None
    seconds: float = 0.0
    message: str = ""


Watcher = Callable[[Event], None]
"""Called from any thread, but never twice at the same time."""


class Engine(Protocol):
    """Applies a stack. Every method raises `LabError` with a sentence for the user."""

    name: str

    def up(self, stack: Stack, watch: Watcher) -> Mapping[str, Any]:
        """Make what exists match the program; returns the stack's outputs, secrets in plain."""

    def preview(self, stack: Stack) -> list[Step]:
        """What `up` would do, without doing it; `same` steps included."""

    def down(self, stack: Stack, watch: Watcher) -> None:
        """Delete everything that the stack made and forget it; a stack that does not exist is no error."""

    def outputs(self, stack: Stack) -> Mapping[str, Any] | None:
        """The outputs of the last `up`, secrets in plain; None when there is no such stack."""


def type_of(urn: str) -> str:
    """The type token in a URN.

    >>> type_of("urn:pulumi:local::airflow-labs::labs:airflow:Scheduler$docker:index:Container::scheduler-1")
    'docker:index:Container'
    """
    return urn.split("::")[2].split("$")[-1]


def name_of(urn: str) -> str:
    """The resource's name in a URN.

    >>> name_of("urn:pulumi:local::airflow-labs::labs:airflow:Scheduler::scheduler")
    'scheduler'
    """
    return urn.split("::", 3)[-1]
