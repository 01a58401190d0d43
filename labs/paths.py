"""Where things live. Two places only: the project's `.lab` (what `down` removes) and the cache (what may stay)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from labs.errors import LabError, UsageError

PROJECT_ROOT = Path(__file__).resolve().parent.parent

PORTS = range(28080, 32760)
"""Ports of labs on this machine; they lie below those that Linux gives to outgoing connections."""

LAB_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
"""A lab's name is a Pulumi stack name, a folder name and, later, a DNS label's material."""


def reachable_by_others(path: Path) -> bool:
    """Whether a process of another user may walk to `path`; what does not exist yet will be made walkable."""
    return all(
        stat.S_IMODE(folder.stat().st_mode) & stat.S_IXOTH for folder in (path, *path.parents) if folder.exists()
    )


def _usable(preferred: Path, system: Path) -> Path:
    """`preferred`, but for root `system` where the servers' own users could not walk to `preferred`.

    PostgreSQL refuses to run as root, so it gets a user of its own, and /root is usually closed to that user.
    """
    if os.geteuid() == 0 and not reachable_by_others(preferred):
        return system
    return preferred


CHECKOUT = hashlib.sha256(str(PROJECT_ROOT).encode()).hexdigest()[:8]
"""Tells this checkout from others that keep things in the same places."""


def state_root() -> Path:
    """The folder that holds one folder per lab of this checkout."""
    return _usable(PROJECT_ROOT / ".lab", Path("/var/lib/airflow-executor-labs") / CHECKOUT)


def lab_directory(name: str) -> Path:
    """Everything a lab leaves on this machine while it lives.

    Raises:
        UsageError: the name is none a stack, a folder and a DNS label can share.
    """
    if not LAB_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a lab name: use up to 40 lower-case letters, digits, dots, dashes and underscores"
        )
    return state_root() / name


def run_directory(name: str) -> Path:
    """What the lab's services know as their home: their files, logs and sockets."""
    return lab_directory(name) / "run"


def engine_directory(name: str) -> Path:
    """What the engine must remember about the lab's stack."""
    return lab_directory(name) / "engine"


def cache_root() -> Path:
    """Content-addressed artefacts, shared by all checkouts of this user; safe to delete while no lab is up."""
    home = os.environ.get("XDG_CACHE_HOME")
    return _usable(
        (Path(home) if home else Path.home() / ".cache") / "airflow-executor-labs",
        Path("/var/cache/airflow-executor-labs"),
    )


def make_private(path: Path, mode: int = 0o700) -> Path:
    """Make a folder and its parents, or say in one sentence why that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    except OSError as error:
        raise LabError(
            f"{path} cannot be written ({error.strerror}); "
            "make it writable, or name another place with XDG_CACHE_HOME for the cache"
        ) from error
    return path
