"""Whom a pod gets a connection to, tried in the pod itself, and whether a cluster keeps NetworkPolicies at all.

The API takes policies on every cluster; what keeps them is its network, and not every network does.
Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#prerequisites
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from labs.errors import LabError
from labs.waiting import WaitTimeout, until
from scenarios.pods import Namespace, execute

if TYPE_CHECKING:
    from labs.cluster import Object

SOON = 20.0
"""Seconds in which a network that keeps policies has learned of a new one, and of a new pod."""

TRY = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def answer(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""
with ThreadPoolExecutor() as pool:
    print(json.dumps(list(pool.map(answer, sys.argv[1:]))))
"""

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
"""Runs a command in a pod."""


def answers(run: Run, addresses: Sequence[str]) -> dict[str, str]:
    """By `host:port`, why a pod gets no connection to it; "" where it gets one.

    Raises:
        LabError: nothing could be tried there.
    """
    ended = run(["python", "-c", TRY, *addresses])
    if ended.returncode:
        raise LabError(f"no connection could be tried in a pod: {ended.stderr.strip().splitlines()[-1:]}")
    return dict(zip(addresses, json.loads(ended.stdout), strict=True))


def policies(namespace: str, name: str = "") -> str:
    """Where the NetworkPolicies of a namespace are."""
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies" + (f"/{name}" if name else "")


@contextmanager
def policy(namespace: Namespace, name: str, spec: Object) -> Iterator[None]:
    """One more NetworkPolicy while the block runs."""
    thing = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
    namespace.api.request("POST", policies(namespace.name), thing)
    try:
        yield
    finally:
        namespace.api.request("DELETE", policies(namespace.name, name))


@contextmanager
def stranger(namespace: Namespace) -> Iterator[tuple[Namespace, Run]]:
    """A pod that belongs to no lab, in a namespace of its own without a policy; gives both, of the pod what runs there.

    Its namespace has the lab's mark, so that `down` removes what a verification that was killed has left.
    """
    from labs.cluster import OWNER

    own = namespace.api.request("GET", f"/api/v1/namespaces/{namespace.name}")["metadata"]["labels"]
    image = namespace.airflow_image()
    space = namespace.beside(f"{namespace.name}-stranger-{uuid4().hex[:6]}")
    metadata = {"name": space.name, "labels": {OWNER: own[OWNER]}}
    namespace.api.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        container = {"name": "base", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}
        spec = {"containers": [container], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": spec}

        def made() -> tuple[bool | None, str]:
            try:
                space.api.request("POST", space.path("pods"), pod)
            except LabError as error:  # its namespace has no service account yet
                return None, str(error)
            return True, "made"

        def runs() -> tuple[bool | None, str]:
            status = space.api.request("GET", space.path("pods", "stranger"))["status"]
            return (status.get("phase") == "Running" or None), str(status)

        until(made, what=f"a pod to be made in {space.name}", timeout=30)
        until(runs, what=f"the pod in {space.name} to run", timeout=60)
        yield space, partial(execute, space, "stranger", "base")
    finally:
        space.api.request("DELETE", f"/api/v1/namespaces/{space.name}")


def service_address(namespace: Namespace, address: str) -> str:
    """The same `host:port` with the address of the Service that a pod of the namespace knows as host."""
    host, _, port = address.rpartition(":")
    return f"{namespace.api.request('GET', namespace.path('services', host))['spec']['clusterIP']}:{port}"


def keeps_policies(namespace: Namespace, address: str) -> bool:
    """Whether the network of a cluster keeps NetworkPolicies: a pod that may reach nobody then loses an address.

    Args:
        address: `host:port` of what all pods of the cluster may reach.

    Raises:
        LabError: the pod does not reach it without a policy either, so that this shows nothing.
    """
    with stranger(namespace) as (space, run):

        def refused() -> tuple[bool | None, str]:
            answer = answers(run, [address])[address]
            return (True if answer else None), answer or f"it reaches {address}"

        if refused()[0]:
            raise LabError(f"a pod without a policy does not reach {address}: {refused()[1]}")
        with policy(space, "nothing", {"podSelector": {}, "policyTypes": ["Egress"]}):
            try:
                until(refused, what="a pod that may reach nobody to be refused", timeout=SOON, interval=0.5)
            except WaitTimeout:
                return False
    return True
