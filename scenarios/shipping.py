"""Logs of services where tasks can read them: in files of a folder, as a log agent keeps those of containers on a node.

Source: https://kubernetes.io/docs/concepts/cluster-administration/logging/#using-a-node-logging-agent
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from labs.service_logs import ServiceLog

EVERY = 1.0
"""Seconds between two looks at the logs."""


@contextmanager
def shipped(logs: Mapping[str, ServiceLog], folder: Path) -> Iterator[None]:
    """What these services say from now on, each in its file `<service>.log` of the folder, while the block runs.

    Raises:
        Exception: that which kept a log from being shipped; the files then lack what came after it.
    """
    starts = {name: log.now() for name, log in logs.items()}
    over, failures = threading.Event(), list[Exception]()

    def once() -> None:
        for name, log in logs.items():
            fresh = folder / f"{name}.new"
            fresh.write_text(log.read(starts[name]))
            fresh.replace(folder / f"{name}.log")  # whole, whoever reads it meanwhile

    def ship() -> None:
        try:
            while not over.wait(EVERY):
                once()
        except Exception as error:
            failures.append(error)

    once()
    shipper = threading.Thread(target=ship, daemon=True)
    shipper.start()
    try:
        yield
    finally:
        over.set()
        shipper.join(timeout=60)
    if failures:
        raise failures[0]
