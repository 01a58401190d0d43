"""metrics-server: what the pods and nodes of a cluster use, for `kubectl top` and HorizontalPodAutoscalers.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.clusters import add_on
from labs.cluster import Cluster, Object, Refused, cluster
from labs.engines.kubernetes import wait_ready
from labs.errors import UsageError
from labs.waiting import until

METRICS = "/apis/metrics.k8s.io/v1beta1"

API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
"""What makes a cluster's API server pass requests for `METRICS` on."""

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
    return add_on.objects("metrics-server.yaml", {"IMAGE": image})


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
        api = cluster(props["kubeconfig"])

        def works(made: list[Object]) -> None:
            for each in made:
                wait_ready(api, each)
            until(lambda: measured(api), what="metrics-server to measure every node", timeout=MEASURED, interval=1)

        add_on.install(api, API_SERVICE, objects(str(props["image"])), works)
        return CreateResult("metrics-server", props)

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        same = olds["image"] == news["image"] and olds["kubeconfig"] == news["kubeconfig"]
        return DiffResult(changes=not same or measured(cluster(news["kubeconfig"]))[0] is None)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)


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
