"""What the kubernetes platform may ask of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import pulumi
import yaml

from labs.cluster import Cluster as Api
from labs.cluster import Refused
from labs.errors import LabError, UsageError

SUPPORTED = (1, 30)
"""The oldest Kubernetes that the labs are run on; sidecars and pod failure policies are there."""


ZONE = "topology.kubernetes.io/zone"
"""Label of nodes. https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone"""

GPU = "nvidia.com/gpu"
"""Key of the taint of nodes that are kept for GPU work, and for what must be in their zone."""


RIGHTS: Sequence[tuple[str, str, str, str]] = (
    ("create", "namespaces", "", "create a namespace"),
    ("list", "nodes", "", "list nodes"),
    ("list", "services", "", "list the Services of all namespaces, whose NodePorts are taken"),
    ("create", "roles", "rbac.authorization.k8s.io", "create Roles"),
)
"""What a user must be allowed to: verb, resource, API group, and how to say it."""

DEFAULT = "storageclass.kubernetes.io/is-default-class"
"""https://kubernetes.io/docs/concepts/storage/storage-classes/#default-storageclass"""


class Cluster(Protocol):
    """A cluster that is there, or is made."""

    kind: ClassVar[str]
    """What `--cluster` calls it."""

    sees_home: ClassVar[bool]
    """Whether its nodes see the lab directories of this machine, under the same path."""

    @property
    def kubeconfig(self) -> pulumi.Output[str]:
        """The text of a kubeconfig whose current context is this cluster; a secret."""

    @property
    def nodes(self) -> pulumi.Output[Sequence[str]]:
        """Containers of this machine's Docker that are the nodes; empty where they are none."""


def check_usable(api: Api, where: str) -> None:
    """Check that a lab can be on a cluster.

    Raises:
        UsageError: it is too old, this user may not do there what a lab needs, or volumes have no class of storage;
            says what to do.
    """
    version = api.version()
    if version < SUPPORTED:
        raise UsageError(
            f"{where} runs Kubernetes {version[0]}.{version[1]}; the labs need {SUPPORTED[0]}.{SUPPORTED[1]} or newer: "
            "upgrade it, or name another cluster with --cluster"
        )
    for verb, resource, group, told in RIGHTS:
        if not api.may(verb, resource, group=group):
            raise UsageError(
                f"{where} does not let this user {told}; ask for the right to, or name another cluster with --cluster"
            )
    check_storage(api, where)


def check_storage(api: Api, where: str) -> None:
    """Check that a claim which names no storage class gets a volume.

    Raises:
        UsageError: none would ever be bound; says what to do.
    """
    try:
        classes = api.items("/apis/storage.k8s.io/v1/storageclasses")
    except Refused:  # this user may not look: the claims themselves tell
        return
    names = [each["metadata"]["name"] for each in classes]
    if not any((each["metadata"].get("annotations") or {}).get(DEFAULT) == "true" for each in classes):
        how = f"make {' or '.join(names)} the default one" if names else "install a storage provisioner there"
        raise UsageError(
            f"{where} has no default storage class, of which the volumes of a lab's database and tasks are: {how}"
        )


def check_spread(api: Api, where: str) -> None:
    """Check that services that stand in for one another can be kept apart on a cluster.

    Raises:
        UsageError: it has fewer than two zones, or this user may make no priority class there; says what to do.
    """
    zones = {
        node["metadata"].get("labels", {}).get(ZONE)
        for node in api.items("/api/v1/nodes")
        if not node["spec"].get("unschedulable")
        and {each["key"] for each in node["spec"].get("taints", ()) if each["effect"] != "PreferNoSchedule"} <= {GPU}
    } - {None}
    if len(zones) < 2:
        raise UsageError(
            f"{where} has nodes for pods in {len(zones)} zones, and a lab with several of a role needs 2: label nodes "
            f"with {ZONE}, or ask for one of each with --config replicas.ROLE=1"
        )
    if not api.may("create", "priorityclasses", group="scheduling.k8s.io"):
        raise UsageError(
            f"{where} does not let this user create a priority class, which a lab with several of a role has; ask for "
            "the right to, or name another cluster with --cluster"
        )


def with_namespace(kubeconfig: str, namespace: str) -> str:
    """The kubeconfig with a namespace for its current context, so that `kubectl` needs none."""
    values: dict[str, Any] = yaml.safe_load(kubeconfig)
    for context in values["contexts"]:
        if context["name"] == values["current-context"]:
            context["context"]["namespace"] = namespace
            return str(yaml.safe_dump(values))
    raise LabError("the kubeconfig has no current context; choose one with `kubectl config use-context`")
