"""KEDA: workers by the number of their tasks, from none on.

Source: https://keda.sh/docs/2.20/concepts/
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.clusters import add_on
from labs.cluster import Cluster, Object, Refused, cluster, plight
from labs.errors import UsageError
from labs.waiting import until

KINDS = "/apis/keda.sh/v1alpha1"

METRICS = "/apis/external.metrics.k8s.io/v1beta1"
"""What its metrics adapter serves to HorizontalPodAutoscalers."""

MARK = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledobjects.keda.sh"

PODS = "/api/v1/namespaces/keda/pods"

OPERATOR = {"app": "keda-operator"}
"""Label of the pods that ask the databases, in every namespace that its makers' ways to install it choose."""

WORKS = 240.0
"""Seconds until it works: the operator makes certificates, and both programs may start again when they come."""

Props = dict[str, Any]


def check_counted(api: Cluster, where: str) -> None:
    """Check that a cluster has KEDA.

    Raises:
        UsageError: it has not; says what to do.
    """
    if works(api)[0] is None:
        raise UsageError(
            f"{where} has no KEDA that answers: install it there as its makers say, or leave out --with keda"
        )


def objects(operator: str, adapter: str) -> list[Object]:
    """What is applied, in that order: kinds first."""
    return add_on.objects("keda.yaml", {"OPERATOR": operator, "ADAPTER": adapter})


def works(api: Cluster) -> tuple[bool | None, str]:
    """Whether its kinds are known and its metrics adapter answers, None while not, and what was seen."""
    try:
        if api.found(KINDS) is None:
            return None, "its kinds are not known"
        return (None if api.found(METRICS) is None else True), "its metrics adapter is not known"
    except Refused as error:  # it is known, and down
        return None, str(error)


def _operates(api: Cluster) -> tuple[bool | None, str]:
    """The same of what these labs have put there, with its operator."""
    done, said = works(api)
    pods = api.items(PODS)
    up = {
        pod["metadata"]["labels"]["app"]
        for pod in pods
        if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    }
    if done and OPERATOR["app"] in up:
        return True, "it works"
    return None, "; ".join([said, *filter(None, (plight(api, pod) for pod in pods))])


class _KedaProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        api = cluster(props["kubeconfig"])

        def awaited(made: list[Object]) -> None:
            # no workload is waited for as such: that one starts again until its certificates are there is no failure
            probe = _operates if made else works
            until(lambda: probe(api), what="KEDA to work", timeout=WORKS, interval=1)

        add_on.install(api, MARK, objects(str(props["operator"]), str(props["adapter"])), awaited)
        return CreateResult("keda", props)

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        same = all(olds[key] == news[key] for key in ("kubeconfig", "operator", "adapter"))
        return DiffResult(changes=not same or works(cluster(news["kubeconfig"]))[0] is None)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)


class Keda(Resource, module="kubernetes", name="Keda"):
    """The cluster add-on KEDA; done when it works. It outlives the lab.

    Args:
        operator: its image.
        adapter: that of its metrics adapter.
    """

    def __init__(
        self,
        kubeconfig: pulumi.Input[str],
        operator: pulumi.Input[str],
        adapter: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"kubeconfig": kubeconfig, "operator": operator, "adapter": adapter}
        super().__init__(_KedaProvider(), "keda", props, opts)
