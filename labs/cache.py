"""Artefacts that are made once per content and kept in the user's cache directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import filelock

from labs.errors import LabError
from labs.paths import PROJECT_ROOT, cache_root, make_private, reachable_by_others
from labs.waiting import until

IMAGES = PROJECT_ROOT / "images"

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""Versions for which the locks have wheels."""

KEPT = 30 * 86400
"""Seconds without use after which an artefact goes when another of its kind is made."""

Tell = Callable[[str], None]
"""Takes a line on what is being made."""


@cache
def interpreter() -> str:
    """The Python of the environments: this one, but for root one that users other than root can run too.

    Services of root may get users of their own, to whom a Python below /root is closed.
    """
    own = Path(sys.executable).resolve()
    if os.geteuid() != 0 or reachable_by_others(own):
        return str(own)
    for folder in os.get_exec_path():
        for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10"):
            candidate = (Path(folder) / name).resolve()
            if candidate.is_file() and reachable_by_others(candidate) and _version(candidate) in PYTHONS:
                return str(candidate)
    return str(own)


def _version(python: Path) -> str:
    command = [str(python), "-c", "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"]
    return str(subprocess.run(command, capture_output=True, text=True, check=False).stdout).strip()


def fingerprint(*parts: str | Path) -> str:
    """A short content hash over texts and files, for the Python of the environments and the machine type."""
    digest = hashlib.sha256(f"{interpreter()}{platform.machine()}{platform.system()}".encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()[:16]


def digest(*parts: str | bytes) -> str:
    """A short content hash, for this type of machine."""
    found = hashlib.sha256(platform.machine().encode())
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:16]


def artefact(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `name-key` in the cache, built if it is not there.

    Built in place, since environments cannot be moved; a marker written last tells a whole artefact from one that
    an interruption left half-made, which is then made again. One builder at a time, others wait for it. The marker's
    time is that of the last use.
    """
    root = make_private(cache_root(), 0o755)
    folder, marker = root / f"{name}-{key}", root / f"{name}-{key}" / ".complete"
    if marker.exists():
        with contextlib.suppress(OSError):
            marker.touch()
        return folder
    _forget_unused(root, name)
    lock = filelock.FileLock(root / f"{name}-{key}.lock")

    def take() -> tuple[bool | None, str]:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return None, "another process is building it"
        return True, "ours"

    until(take, what=f"{folder} to be built by another process", timeout=1200)
    try:
        if not marker.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                build(folder)
                marker.touch()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    finally:
        lock.release()
    return folder


def _forget_unused(root: Path, name: str) -> None:
    """Remove what the same recipe made of other contents, and nobody has used for long."""
    for marker in root.glob(f"{name}-*/.complete"):
        if time.time() - marker.stat().st_mtime > KEPT:
            marker.unlink(missing_ok=True)  # what follows may be interrupted
            shutil.rmtree(marker.parent, ignore_errors=True)
            (root / f"{marker.parent.name}.lock").unlink(missing_ok=True)


def environment(name: str) -> Path:
    """The Python environment of `images/<name>.lock`: hash-checked, bytecode compiled, never the tool's own."""
    lock = IMAGES / f"{name}.lock"

    def build(folder: Path) -> None:
        # copies, not links: the cache of the installer may be cleaned while a lab runs
        install = ["--require-hashes", "--compile-bytecode", "--link-mode", "copy", "-r", str(lock)]
        for command in (
            ["venv", "--quiet", "--python", interpreter(), "--allow-existing", str(folder)],
            ["pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *install],
        ):
            done = subprocess.run([sys.executable, "-m", "uv", *command], capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                raise LabError(
                    f"the packages of {lock.relative_to(PROJECT_ROOT)} could not be installed "
                    f"({lines[-1].strip()}); check that the package registry is reachable and the disk is not full"
                )

    return artefact(name, fingerprint(lock), build)
