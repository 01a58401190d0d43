"""Runs one engine command in a process of its own, to be killed, interrupted, or met at the lock."""

from __future__ import annotations

import sys
from pathlib import Path

from labs.engines.base import Stack
from labs.errors import LabError


def run(verb: str, stack: Stack, engine: str, root: Path) -> None:
    """The exit code and the last line of standard error are what the command line would give."""
    from labs.engines import select

    chosen = select(engine, root)
    try:
        if verb == "up":
            chosen.up(stack, lambda event: None)
        else:
            chosen.down(stack, lambda event: None)
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(int(error.exit_code))
