"""Where a program runs: the paths and the working directory that both engines give it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from labs.engines.base import Stack


def absolute(stack: Stack) -> Stack:
    """The stack with paths that stay true when the working directory changes."""
    return replace(stack, program=stack.program.resolve(), directory=stack.directory.resolve())


@contextmanager
def as_program(directory: Path) -> Iterator[None]:
    """Work in the program's directory, with the modules beside it importable, as the Pulumi CLI runs a program.

    A program that is gone leaves nothing to enter: its resources can be deleted without it.
    """
    if not directory.is_dir():
        yield
        return
    before, path = Path.cwd(), list(sys.path)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
