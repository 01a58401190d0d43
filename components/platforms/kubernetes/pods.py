"""Pods as plain data: what every pod of a lab has, whoever makes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pulumi

from components.platforms.base import Health, Stop
from components.platforms.docker.platform import MOVED
from labs.processes import SERVICE_MARK

ROOT = "/lab"
"""Where pods see the lab's folders."""

SECRETS = "/run/lab/secrets"

COPIES = "/run/lab-files"
"""Where pods see files that they get a copy of, to write to."""

SAFE: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Of every container: more than Pod Security `restricted` asks for."""

NOBODY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 50000,
    "runAsGroup": 0,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Of every pod: the user of Airflow's own image."""

SIZES: Mapping[str, tuple[str, str]] = {"airflow": ("256Mi", "2Gi")}
"""Memory that a service asks for and may take, by image; 64Mi and 512Mi where nothing is said."""


SHARES: Mapping[str, str] = {"api-server": "100m"}
"""CPU that a service asks for, by role; 25m where nothing is said. Where cores are short, as when a lab starts on two,
who asks for more gets more: all others wait for the API server."""


def resources(image: str, role: str) -> dict[str, Any]:
    """Requests and limits of a service."""
    least, most = SIZES.get(image, ("64Mi", "512Mi"))
    share = SHARES.get(role, "25m")
    return {"requests": {"cpu": share, "memory": least}, "limits": {"cpu": "2", "memory": most}}


PATIENT: Mapping[str, Any] = {"timeoutSeconds": 20, "failureThreshold": 6}

MAIN = "/tmp/.main"  # noqa: S108 - of the pod
"""File with the id of a container's main process, which is 1 only where the pod's processes are not shared."""

NOTED = f"read -r main _ </proc/self/stat; echo $main >{MAIN}"
"""Writes it. Of `$$` in a command Kubernetes would leave one dollar.
https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/"""


UP = 8797
"""Port at which a service of Airflow listens when its log says that it is up, which cannot be read from within.

`readiness/airflow_local_settings.py` listens. To run a command in a container takes a tenth of a second of a CPU, and a
lab that starts has none to spare.
"""


def probes(health: Mapping[str, Any]) -> dict[str, Any]:
    """The probes of a container; one that has not started is not ready either, and what its log says is said once.

    Starting takes as long as it may, and a service that once was ready is restarted only after minutes without an
    answer: on a slow machine that is no sign of death. Whose port nobody may ask is alive while it moves.
    """
    moves = {"exec": {"command": ["sh", "-c", f"read -r main <{MAIN}\n{MOVED}"]}}
    if health["http"]:
        url = urlsplit(health["http"])
        action: dict[str, Any] = {"httpGet": {"path": url.path or "/", "port": url.port}}
    elif health["tcp"]:
        action = {"tcpSocket": {"port": int(str(health["tcp"]).rpartition(":")[2])}}
    elif health["file"]:
        action = {"exec": {"command": ["test", "-e", health["file"]]}}
    elif health["log"]:
        action = {"tcpSocket": {"port": UP}}
    else:
        return {}
    alive = moves if health["file"] or health["log"] else action
    ready = {} if health["log"] else {"readinessProbe": {**PATIENT, **action, "periodSeconds": 10}}
    return {
        "startupProbe": {**PATIENT, **action, "periodSeconds": 1, "failureThreshold": int(health["timeout"])},
        **ready,
        "livenessProbe": {**PATIENT, **alive, "periodSeconds": 30},
    }


def seen_of(health: Health) -> pulumi.Output[dict[str, Any]]:
    """`probes` of a health check whose address is known later."""
    return pulumi.Output.from_input(dict(vars(health))).apply(probes)


NUMBERED = (
    f'n=${{HOSTNAME##*-}}; [ "$n" = 0 ] || {{ export {SERVICE_MARK}="$0-$n"; '
    'for a; do shift; [ "$a" = "$0" ] && a=$0-$n; set -- "$@" "$a"; done; }'
)
"""Gives each pod of a StatefulSet but the first a name of its own: that of its service, with the number of the pod."""


def entry(copies: Mapping[str, str], ready: str = "", *, numbered: bool = False) -> str:
    """What the shell of a container does before its command takes its place.

    Args:
        copies: by file, where a copy of it is to be.
        ready: file that the command writes once it is ready; what an earlier run has left of it is removed.
        numbered: whether an argument that is the name of the service is to be that of its pod.

    >>> entry({})
    '. /run/lab/secrets; read -r main _ </proc/self/stat; echo $main >/tmp/.main; exec "$@"'
    """
    pairs = sorted(copies.items())
    made = [f"install -m 600 {shlex.quote(source)} {shlex.quote(target)}" for source, target in pairs]
    stale = [f"rm -f {shlex.quote(ready)}"] if ready else []
    named = [NUMBERED] if numbered else []
    return "; ".join([f". {SECRETS}", *stale, *made, *named, NOTED, 'exec "$@"'])


def ending(stop: Stop) -> dict[str, Any]:
    """How a container that ends on another signal than TERM is asked to: it is process 1 of its pod.

    TERM comes as soon as this is over, so it lasts until the process has ended.
    """
    if stop.signal == "TERM":
        return {}
    asked = f"kill -{stop.signal} 1; while kill -0 1; do sleep 0.2; done"
    return {"lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", asked]}}}}


def volume(name: str, source: Mapping[str, Any], mounts: Sequence[Mapping[str, Any]]) -> tuple[Any, list[Any]]:
    """A volume of a pod, and where its container sees it."""
    return {"name": name, **source}, [{"name": name, **mount} for mount in mounts]


def variables(settings: Mapping[str, pulumi.Input[str]]) -> list[dict[str, Any]]:
    """Settings as a container has them."""
    return [{"name": key, "value": value} for key, value in sorted(settings.items())]
