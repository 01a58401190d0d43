"""The Docker daemon of this machine, or one sentence that says why there is none to use."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import docker
import requests
import urllib3
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import DockerException, InvalidVersion

from labs.errors import LabError

OWNER = "airflow-executor-labs.lab-directory"
"""Label of every container, network and volume of a lab: the lab's directory."""

LEAST_API = (1, 41)
"""API of Docker 20.10, the oldest release that the labs are run on."""

TIMEOUT = 120
"""Seconds without a sign of the daemon until a request has failed."""


def started(container: Any) -> datetime:
    """When a container's present run began; it may have written its first lines a moment before Docker noted it."""
    return _moment(container.attrs["State"]["StartedAt"])


def ended_before(container: Any) -> float | None:
    """When a container's run before the present one ended, epoch seconds; None for its first."""
    seconds = _moment(container.attrs["State"]["FinishedAt"]).timestamp()
    return seconds if seconds > 0 else None


def _moment(text: str) -> datetime:
    second, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{second}+00:00") + timedelta(seconds=float(f"0.{fraction or 0}"))


def owned(client: Any, home: str | None = None) -> list[Any]:
    """All containers, networks and volumes of a lab, or of all labs, in an order in which they can be removed."""
    filters = {"label": OWNER if home is None else f"{OWNER}={home}"}
    containers = client.containers.list(all=True, filters=filters, ignore_removed=True)
    return [*containers, *client.networks.list(filters=filters), *client.volumes.list(filters=filters)]


def of_this_machine(client: Any) -> bool:
    """Whether the daemon runs here: containers of another one name folders of other machines."""
    return bool(client.info()["Name"] == platform.node())


def said(error: Exception) -> str:
    """What the daemon, or the line to it, said in an error."""
    return str(getattr(error, "explanation", None) or error)


@contextmanager
def daemon(timeout: float = TIMEOUT) -> Iterator[Any]:
    """A client of the daemon that `DOCKER_HOST`, or else the default socket, leads to.

    Raises:
        LabError: no daemon answers, it refuses this user, or it is too old; or the block asked for what it refused, or
            it went away meanwhile.
    """
    try:
        client = docker.from_env(timeout=timeout)
        version = str(client.version()["ApiVersion"])
    except InvalidVersion as error:
        raise _too_old(f"before {MINIMUM_DOCKER_API_VERSION}") from error
    except DockerException as error:
        if "permission denied" in str(error).lower():
            raise LabError(
                "the Docker daemon does not let this user in; add the user to the group docker and log in again"
            ) from error
        raise LabError(
            "no Docker daemon answers; install Docker (on Debian docker.io, and mmdebstrap for images) and start it, "
            "or use `--platform process`, which needs none"
        ) from error
    if tuple(map(int, version.split("."))) < LEAST_API:
        client.close()
        raise _too_old(version)
    try:
        yield client
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise LabError(
            f"Docker did not do what it was asked for ({said(error)}); `./lab doctor` says whether it answers"
        ) from error
    finally:
        client.close()


def _too_old(version: str) -> LabError:
    return LabError(f"the Docker daemon speaks API {version}; the labs need 1.41 (Docker 20.10) or newer")
