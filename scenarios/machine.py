"""This machine's processes and ports, as the platforms' services need them."""

from __future__ import annotations

import contextlib
import socket

import psutil


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def told(process: psutil.Process) -> str:
    """A process in words, its pid first."""
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:80].strip()}"
    return f"{process.pid} (gone)"


def ancestors(process: psutil.Process) -> set[int]:
    """The pids above a process."""
    try:
        return {parent.pid for parent in process.parents()}
    except psutil.NoSuchProcess:
        return set()


def accepts(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
