"""A lab's containers, networks and volumes, found by the label that each carries: what a crash left has it too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container

from components.platforms.process.inspection import ServiceState
from labs.daemon import daemon, owned, started


def remaining(home: str) -> list[str]:
    """Names of all containers, networks and volumes of the lab."""
    with daemon() as client:
        return sorted(each.name for each in owned(client, home))


def remove_all(home: str) -> None:
    """Remove everything of the lab at once; nothing is no error."""
    with daemon() as client:
        for each in owned(client, home):
            with suppress(NotFound):
                each.remove(**({"v": True, "force": True} if isinstance(each, Container) else {}))


def inspect(containers: Sequence[tuple[str, str]]) -> list[ServiceState]:
    """The state of each service, given by its name and its container's."""
    with daemon() as client, ThreadPoolExecutor() as pool:
        return list(pool.map(lambda each: _state(client, *each), containers))


def _state(client: Any, name: str, container: str) -> ServiceState:
    try:
        found = client.containers.get(container)
        seen = found.attrs["State"]
        if seen["Status"] != "running":
            return ServiceState(name, seen["Status"].upper(), 0, 0.0, 0, 0)
        usage = found.stats(stream=False, one_shot=True)
    except (NotFound, APIError):
        return ServiceState(name, "UNKNOWN", 0, 0.0, 0, 0)
    return ServiceState(
        name=name,
        state="UNHEALTHY" if seen.get("Health", {}).get("Status") == "unhealthy" else "RUNNING",
        pid=int(seen["Pid"]),
        uptime=(datetime.now(timezone.utc) - started(found)).total_seconds(),
        processes=int(usage["pids_stats"].get("current", 0)),
        memory=memory(usage),
    )


def memory(usage: Mapping[str, Any]) -> int:
    """Bytes that a container holds, by its statistics, without page cache that it does not use: as `docker stats`."""
    found = usage["memory_stats"]
    cached = found.get("stats", {}).get("total_inactive_file", found.get("stats", {}).get("inactive_file", 0))
    return int(found.get("usage", 0)) - int(cached)


def show_logs(containers: Sequence[str], lines: int, follow: bool) -> None:
    """Write the last lines of each container's log to standard output, and go on as they grow."""
    with daemon() as client, ThreadPoolExecutor(len(containers)) as pool:
        for name in containers:
            log = client.containers.get(name).logs(tail=lines)
            _write(f"==> {name} <==\n".encode() + log)
        if follow:
            streams = [client.containers.get(name).logs(stream=True, follow=True, tail=0) for name in containers]
            list(pool.map(_drain(_write), streams))


def _drain(write: Callable[[bytes], None]) -> Callable[[Any], None]:
    def drain(stream: Any) -> None:
        for line in stream:
            write(line)

    return drain


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
