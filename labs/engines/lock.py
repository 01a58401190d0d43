"""One command at a time per stack, whichever engine applies it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labs.engines.base import Stack
from labs.errors import LabError


@contextmanager
def stack_lock(stack: Stack, verb: str) -> Iterator[None]:
    """Hold the stack's lock; the kernel releases it when this process dies, however it dies.

    The descriptor is not inherited by programs that this process starts, so no service can keep it.

    Raises:
        LabError: another process holds it; the sentence names that process and what it does.
    """
    path = stack.directory / "lock"
    try:
        descriptor = _acquire(path)
    except OSError as error:
        raise LabError(
            f"{stack.directory} cannot be written ({error.strerror}); make it writable or free some "
            "space, then run the command again"
        ) from error
    if descriptor is None:
        raise LabError(f"{_holder(path)}; wait for it to end, or end it, then run the command again")
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"`{verb}` of lab {stack.name} is running as process {os.getpid()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for this very file sees that it is gone
        os.close(descriptor)
        with suppress(OSError):
            stack.directory.rmdir()  # nothing is left of a command that made nothing, or of a `down`


def _acquire(path: Path) -> int | None:
    """The descriptor of the locked file, made with its private folder; None when somebody else holds it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.parent.chmod(0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # its last holder has just removed the folder
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            # Its holder may have removed the file between the two calls: the lock then protects nothing.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "another command of this lab is starting"
    except OSError:
        return "another command of this lab is ending"
