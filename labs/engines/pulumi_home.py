"""Where the Pulumi CLI finds this project's state and passphrase; light, since every command may prepare them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from labs.engines.base import PROJECT
from labs.errors import LabError, UsageError


def is_installed() -> bool:
    """Whether the Pulumi CLI is on the PATH."""
    return shutil.which("pulumi") is not None


def prepare(project_root: Path, stack_names: Iterable[str]) -> None:
    """Let `pulumi up -s <stack>` work at the repository's root: cheap, and safe to repeat.

    Makes the file backend of `Pulumi.yaml` with its passphrase, an empty state per stack (what `pulumi stack init`
    writes), and a copy of each stack's committed configuration: the CLI writes the salt of its secrets into the copy.
    Does nothing without the Pulumi CLI on the PATH.
    """
    if not is_installed():
        return
    passphrase(project_root)
    folder = home(project_root)
    states = folder / ".pulumi" / "stacks" / PROJECT
    states.mkdir(parents=True, exist_ok=True)
    (folder / ".pulumi" / "meta.yaml").write_text("version: 1\n")
    configs = folder / "config"
    configs.mkdir(exist_ok=True)
    for name in stack_names:
        state = states / f"{name}.json"
        if not state.exists():
            state.write_text(json.dumps({"version": 3, "checkpoint": {"stack": f"organization/{PROJECT}/{name}"}}))
        source, copy = project_root / "stacks" / f"Pulumi.{name}.yaml", configs / f"Pulumi.{name}.yaml"
        if source.exists() and (not copy.exists() or copy.stat().st_mtime < source.stat().st_mtime):
            copy.write_text(source.read_text())


def home(project_root: Path) -> Path:
    """The file backend's folder, made when needed."""
    folder = project_root.resolve() / ".lab" / "pulumi"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder} cannot be made ({error.strerror}); make it writable") from error
    return folder


def passphrase(project_root: Path) -> dict[str, str]:
    """The environment that gives the CLI its passphrase: the user's, or the one generated beside the state.

    Raises:
        UsageError: the user's is empty, and with it anybody could decrypt the secrets.
    """
    if (phrase := os.environ.get("PULUMI_CONFIG_PASSPHRASE")) is not None:
        _refuse_empty(phrase, "PULUMI_CONFIG_PASSPHRASE")
        return {"PULUMI_CONFIG_PASSPHRASE": phrase}
    given = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    if given:
        try:
            _refuse_empty(Path(given).read_text(), f"PULUMI_CONFIG_PASSPHRASE_FILE ({given})")
        except OSError as error:
            raise UsageError(
                f"PULUMI_CONFIG_PASSPHRASE_FILE names {given}, which cannot be read ({error.strerror}); name another "
                "file, or unset it and a passphrase is generated"
            ) from error
        return {"PULUMI_CONFIG_PASSPHRASE_FILE": str(Path(given).resolve())}
    file = home(project_root) / "passphrase"
    if not file.exists():
        new = file.with_name(f"passphrase.{os.getpid()}")
        new.touch(0o600)
        new.write_text(secrets.token_urlsafe(32))
        new.replace(file)
    return {"PULUMI_CONFIG_PASSPHRASE_FILE": str(file)}


def _refuse_empty(phrase: str, source: str) -> None:
    if not phrase.strip():
        raise UsageError(
            f"{source} is empty, so nothing would protect the secrets; set it to a passphrase, or unset it and one is "
            "generated"
        )
