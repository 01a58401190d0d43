"""metrics-server: what the pods and nodes of a cluster use, for `kubectl top` and HorizontalPodAutoscalers.

All labs of a cluster share it. On a kind cluster it is applied, and stays until that goes; a cluster of the user's has
it already, or no lab that asks for it. What somebody else has put there is used as it is.
Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from labs.cluster import MANAGER, Cluster, Object, Refused, cluster
from labs.engines.kubernetes import apply, remove, wait_ready
from labs.errors import LabError, UsageError
from labs.waiting import until

METRICS = "/apis/metrics.k8s.io/v1beta1"

API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
"""What makes a cluster's API server pass requests for `METRICS` on."""

OURS = {"app.kubernetes.io/managed-by": MANAGER}
"""Labels of what these labs have put into a cluster for all of them."""

MEASURED = 120.0
"""Seconds until every node is measured: it takes two looks at each, 15 s apart."""

Props = dict[str, Any]


def check_measured(api: Cluster, where: str) -> None:
    """Check that a cluster measures its pods.

    Raises:
        UsageError: it does not; says what to do.
    """
    try:
        there = api.found(METRICS) is not None
    except Refused:  # it is known, and whatever serves it is down
        there = False
    if not there:
        raise UsageError(
            f"{where} has no metrics-server that answers: install it there as its makers say, or leave out "
            "--with metrics-server"
        )


def objects(image: str) -> list[Object]:
    """What is applied, in that order."""
    text = Path(__file__).with_name("metrics-server.yaml").read_text().replace("IMAGE", image)
    found = list(yaml.safe_load_all(text))
    for each in found:
        each["metadata"]["labels"] = {**each["metadata"].get("labels", {}), **OURS}
    return found


def measured(api: Cluster) -> tuple[bool | None, str]:
    """Whether every node has been measured, None while one has not, and what was seen."""
    try:
        seen = {each["metadata"]["name"] for each in api.items(f"{METRICS}/nodes")}
    except Refused as error:
        return None, str(error)
    lacking = sorted({each["metadata"]["name"] for each in api.items("/api/v1/nodes")} - seen)
    return (None if lacking else True), f"nothing of {', '.join(lacking)} yet"


class _MetricsServerProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        api, image = cluster(props["kubeconfig"]), str(props["image"])
        found = api.found(API_SERVICE)
        made: list[Object] = []
        try:
            if found is None or _ours(found):
                *parts, service = objects(image)
                made += [apply(api, each) for each in parts]
                for each in made:
                    wait_ready(api, each)
                # last: whoever answers the API server's first look is the one whom it asks from then on, and before
                # nodes know the way to the pod that may be somebody outside of the cluster
                made.append(apply(api, service))
                wait_ready(api, made[-1])
            until(lambda: measured(api), what="metrics-server to measure every node", timeout=MEASURED, interval=1)
        except BaseException:
            for each in reversed(made if found is None else []):
                with contextlib.suppress(LabError):
                    remove(api, each)
            raise
        return CreateResult("metrics-server", props)

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        same = olds["image"] == news["image"] and olds["kubeconfig"] == news["kubeconfig"]
        return DiffResult(changes=not same or measured(cluster(news["kubeconfig"]))[0] is None)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)


def _ours(found: Object) -> bool:
    return OURS.items() <= (found["metadata"].get("labels") or {}).items()


class MetricsServer(Resource, module="kubernetes", name="MetricsServer"):
    """The cluster add-on metrics-server; done when it measures every node. It outlives the lab."""

    def __init__(
        self,
        kubeconfig: pulumi.Input[str],
        image: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"kubeconfig": kubeconfig, "image": image}
        super().__init__(_MetricsServerProvider(), "metrics-server", props, opts)
