"""One way to wait: for a named condition, with a deadline, ended at once by an interruption."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from labs.errors import Interrupted, LabError

T = TypeVar("T")

interruption = threading.Event()
"""Set by whoever handles SIGINT or SIGTERM; every wait of the process then ends with `Interrupted`."""


class WaitTimeout(LabError):
    """A wait reached its deadline; the message carries the last state seen and what the caller adds to it."""


def until(
    probe: Callable[[], tuple[T | None, str]],
    *,
    what: str,
    timeout: float,
    interval: float = 0.2,
    detail: Callable[[], str] = lambda: "",
) -> T:
    """Poll `probe` until it gives a value.

    Args:
        probe: returns `(value, state)`; a value other than None ends the wait, `state` says in words what was
            seen. An exception it raises ends the wait too: a probe that expects failures makes them states.
        what: the condition, as it reads after "waited for".
        timeout: seconds until `WaitTimeout`.
        interval: seconds between two probes.
        detail: called once on time-out for what helps to understand it, such as the last log lines.

    Raises:
        WaitTimeout: with the condition, the last state, and the detail.
        Interrupted: as soon as `interruption` is set.
    """
    deadline = time.monotonic() + timeout
    while True:
        value, state = probe()
        if value is not None:
            return value
        if time.monotonic() >= deadline:
            extra = detail()
            raise WaitTimeout(
                f"waited {timeout:.0f} s for {what}; last state: {state}" + (f"\n{extra}" if extra else "")
            )
        if interruption.wait(interval):
            raise Interrupted(f"interrupted while waiting for {what}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM set `interruption`, so that work ends in order; a second acts as ever.

    Only the main thread receives signals, and an outer `interruptible` already listens: else a no-op.
    On the way out `interruption` is cleared, so that the next command of this process can wait again.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or _listening.is_set():
        yield
        return
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def arrived(number: int, frame: FrameType | None) -> None:
        interruption.set()
        restore()

    _listening.set()
    try:
        for number in signals:
            signal.signal(number, arrived)
        yield
    finally:
        restore()
        _listening.clear()
        interruption.clear()


_listening = threading.Event()
