"""What a lab's services say, wherever their platform keeps it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

DOCKER = "docker://"
"""What testinfra calls the host of a service in a container."""


KUBECTL = "kubectl://"
"""And of one in a pod."""


class ServiceLog(Protocol):
    """The log of one replica of a service."""

    def now(self) -> float:
        """A mark for `read`: what is said from now on."""

    def read(self, since: float = 0) -> str:
        """What was said since a mark, or all that is kept."""


@dataclass(frozen=True)
class FileLog:
    """A file of this machine; a mark is a place in it."""

    path: Path

    def now(self) -> float:
        """The end of the file."""
        return self.path.stat().st_size

    def read(self, since: float = 0) -> str:
        """The text after that place."""
        with self.path.open("rb") as file:
            file.seek(int(since))
            return file.read().decode(errors="replace")


CONFLICT = 409
"""What the daemon answers to who asks for the log of a container that is being removed."""


@dataclass(frozen=True)
class ContainerLog:
    """What a container writes to its standard output and error; a mark is a moment."""

    container: str

    def now(self) -> float:
        """Epoch seconds: the daemon is on this machine."""
        return time.time()

    def read(self, since: float = 0) -> str:
        """The lines that came after that moment.

        Raises:
            LabError: no daemon answers.
        """
        from docker.errors import APIError, NotFound

        from labs.daemon import daemon

        with daemon() as client:
            try:
                return str(client.containers.get(self.container).logs(since=since or None).decode(errors="replace"))
            except APIError as error:
                if not isinstance(error, NotFound) and error.status_code != CONFLICT:
                    raise
                return "(there is no such container)"


@dataclass(frozen=True)
class PodLog:
    """What the pod of a service writes to its standard output and error; a mark is a moment."""

    outputs: Mapping[str, Any]
    service: str

    def now(self) -> float:
        """Epoch seconds: of a cluster on this machine, or with its clock in time."""
        return time.time()

    def read(self, since: float = 0) -> str:
        """The lines that came after that moment.

        Raises:
            LabError: the cluster does not answer.
        """
        from components.platforms.kubernetes.inspection import read_log

        return read_log(self.outputs, self.service, since)


def service_logs(outputs: Mapping[str, Any]) -> dict[str, ServiceLog]:
    """The log of each replica of each service of a lab, by its name."""
    replicas = [replica for group in outputs.get("services", {}).values() for replica in group]
    return {replica["name"]: _log(outputs, replica) for replica in replicas if replica.get("log")}


def _log(outputs: Mapping[str, Any], replica: Mapping[str, Any]) -> ServiceLog:
    if replica["host"].startswith(DOCKER):
        return ContainerLog(replica["log"])
    if replica["host"].startswith(KUBECTL):
        return PodLog(outputs, replica["name"])
    return FileLog(Path(replica["log"]))
