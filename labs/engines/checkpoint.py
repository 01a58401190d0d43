"""What the embedded engine remembers about a stack: on disk around every operation, secrets encrypted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.fernet import Fernet, InvalidToken

from labs.engines.base import PROJECT, Stack, name_of, type_of
from labs.engines.values import Secret, Values, transform
from labs.errors import LabError

VERSION = 1
_CIPHERTEXT = "labs:ciphertext"


@dataclass(frozen=True)
class Resource:
    """One resource as it was last applied.

    Attributes:
        id: what its provider calls it; empty for components and for what was never finished.
        custom: whether a provider makes it; False for components and the stack.
        property_dependencies: input property to the URNs its value came from.
        retain: leave the real thing alone when the resource goes.
        provider: URN of the provider resource that the program names for it.
    """

    urn: str
    custom: bool
    id: str = ""
    parent: str = ""
    inputs: Values = field(default_factory=dict)
    outputs: Values = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protect: bool = False
    retain: bool = False
    provider: str = ""

    @property
    def type(self) -> str:
        return type_of(self.urn)

    @property
    def name(self) -> str:
        return name_of(self.urn)

    @property
    def needs(self) -> set[str]:
        """URNs of everything that must exist as long as this does."""
        return {
            self.parent,
            self.provider,
            *self.dependencies,
            *(urn for urns in self.property_dependencies.values() for urn in urns),
        }


@dataclass(frozen=True)
class Pending:
    """An operation that began; found in a checkpoint, its process died before the operation ended."""

    operation: Literal["create", "update", "delete"]
    resource: Resource


@dataclass
class Snapshot:
    """Everything known about a stack.

    Attributes:
        resources: by URN.
        condemned: replaced, but not deleted yet.
    """

    resources: dict[str, Resource] = field(default_factory=dict)
    condemned: list[Resource] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)

    @property
    def holds_anything(self) -> bool:
        """Whether anything real may exist: components are only names."""
        resources = (*self.resources.values(), *self.condemned, *(item.resource for item in self.pending))
        return any(item.custom for item in resources)


class Checkpoint:
    """A stack's snapshot on disk: `checkpoint.json`, the one before it (`.bak`), the key of its secrets."""

    def __init__(self, stack: Stack) -> None:
        self.path = stack.directory / "checkpoint.json"
        self._stack = stack
        self._backup = self.path.with_suffix(".json.bak")
        self._key = stack.directory / "checkpoint.key"
        self._saved: Any = None
        self._fernet: Fernet | None = None

    def load(self) -> Snapshot | None:
        """The last snapshot, or None when there is no such stack.

        Raises:
            LabError: it is there but cannot be used; the sentence says what to do.
        """
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            if self._backup.exists():
                raise self._damaged("it is missing") from None
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        try:
            document = json.loads(text)
            version, project, name = (document[key] for key in ("version", "project", "stack"))
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"not a checkpoint: {error!r}") from error
        if version != VERSION:
            raise LabError(
                f"{self.path} was written by another version of this project (format {version}, not "
                f"{VERSION}); run `down` with that version first"
            )
        if (project, name) != (PROJECT, self._stack.name):
            raise LabError(
                f"{self.path} belongs to {project}/{name}, not to {PROJECT}/{self._stack.name}; "
                "put it back where it came from"
            )
        try:
            unsealed = self._unseal(document)
            snapshot = Snapshot(
                {item["urn"]: _resource(item) for item in unsealed["resources"]},
                [_resource(item) for item in unsealed["condemned"]],
                [Pending(item["operation"], _resource(item["resource"])) for item in unsealed["pending"]],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(f"not a checkpoint: {error!r}") from error
        self._saved = self.document(snapshot)
        return snapshot

    def document(self, snapshot: Snapshot) -> Any:
        """What is to be saved of a snapshot, as it is now."""
        return {
            "version": VERSION,
            "project": PROJECT,
            "stack": self._stack.name,
            "resources": [vars(item) for item in snapshot.resources.values()],
            "condemned": [vars(item) for item in snapshot.condemned],
            "pending": [{"operation": item.operation, "resource": vars(item.resource)} for item in snapshot.pending],
        }

    def save(self, document: Any) -> None:
        """Write what `document` gave, all or nothing; a snapshot equal to the last one costs nothing.

        Raises:
            LabError: it cannot be written; what was on disk before is untouched.
        """
        if document == self._saved:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps(transform(document, self._seal), indent=1)
            self._backup.unlink(missing_ok=True)
            if self.path.exists():
                os.link(self.path, self._backup)
            _write(self.path, text.encode())
        except OSError as error:
            raise LabError(
                f"{self.path} cannot be written ({error.strerror}); free some space or make it writable, and "
                "run the command again: nothing that was made is forgotten"
            ) from error
        self._saved = document

    def remove(self) -> None:
        """Forget the stack, with what a killed process had not yet put in its place."""
        for path in (self._backup, self.path, self._key):
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.new").unlink(missing_ok=True)

    def _damaged(self, why: str) -> LabError:
        cure = (
            f"restore the state before the last operation with `mv {self._backup} {self.path}`"
            if self._backup.exists()
            else "restore it from a copy of yours"
        )
        return LabError(f"{self.path} is damaged ({why}); {cure}, and run the command again")

    def _cipher(self, *, create: bool) -> Fernet:
        if self._fernet is None:
            if create and not self._key.exists():
                _write(self._key, Fernet.generate_key())
            self._fernet = Fernet(self._key.read_bytes())
        return self._fernet

    def _seal(self, leaf: Any) -> Any:
        if not isinstance(leaf, Secret):
            return leaf
        return {_CIPHERTEXT: self._cipher(create=True).encrypt(json.dumps(leaf.value).encode()).decode()}

    def _unseal(self, value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {_CIPHERTEXT}:
                try:
                    return Secret(json.loads(self._cipher(create=False).decrypt(value[_CIPHERTEXT].encode())))
                except (OSError, InvalidToken, ValueError) as error:
                    raise LabError(
                        f"{self._key} is missing or is not the key of {self.path}; restore it from a copy, "
                        "for the secrets of this stack cannot be read without it"
                    ) from error
            return {key: self._unseal(item) for key, item in value.items()}
        return [self._unseal(item) for item in value] if isinstance(value, list) else value


def _resource(item: Mapping[str, Any]) -> Resource:
    dependencies = {key: tuple(urns) for key, urns in item["property_dependencies"].items()}
    fields = {**item, "dependencies": tuple(item["dependencies"]), "property_dependencies": dependencies}
    return Resource(**fields)


def _write(path: Path, content: bytes) -> None:
    """Replace a file's content, all or nothing, also when the machine stops in between."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.touch(0o600)
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
