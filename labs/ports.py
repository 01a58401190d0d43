"""Ports of this machine that labs were given, whichever checkout they are of."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import filelock

from labs.paths import cache_root, make_private


@contextlib.contextmanager
def registered() -> Iterator[dict[str, dict[str, int]]]:
    """Ports by lab directory and key, of all labs of this user that exist; what is changed is kept.

    A lab has its port before a service listens there, so who looks for a free one looks here as well.
    """
    cache = make_private(cache_root(), 0o755)
    record = cache / "ports.json"
    with filelock.FileLock(cache / "ports.lock", timeout=30):
        try:
            known = json.loads(record.read_text())
            found = {home: ports for home, ports in known.items() if Path(home).exists()}
        except (OSError, ValueError):
            found = {}
        yield found
        fresh = record.with_suffix(".new")
        fresh.write_text(json.dumps({home: ports for home, ports in found.items() if ports}, indent=1))
        fresh.replace(record)
