"""The dynamic resources of the kubernetes platform: what no Kubernetes object stands for.

Each provider is importable, takes every setting through its inputs, and ends by itself.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.clusters.kind import NODE_PORTS, load, published
from labs import images
from labs.cache import artefact
from labs.cluster import Cluster, Object, cluster, last_lines, plight
from labs.daemon import daemon
from labs.errors import LabError, UsageError
from labs.waiting import until

MOST_TOLD = 50
"""Images of which a kubelet tells at most: it may have others too."""

NO_POD: Object = {"metadata": {"name": "", "uid": ""}}
"""Of a service that was scaled to none."""

Props = dict[str, Any]


def full_name(reference: str) -> str:
    """A name as containerd knows it, for an image of this project."""
    return f"docker.io/{reference}"


def open_to(nodes: Sequence[Object], every: bool) -> list[str]:
    """The nodes that run pods of a lab.

    Args:
        every: also those with a taint that a task may tolerate.
    """
    found = []
    for node in nodes:
        taints = {each["key"] for each in node["spec"].get("taints", ()) if each["effect"] != "PreferNoSchedule"}
        if "node-role.kubernetes.io/control-plane" not in taints and (every or not taints):
            found.append(str(node["metadata"]["name"]))
    return found


class _NodeImageProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        api = cluster(props["kubeconfig"])
        listed = api.items("/api/v1/nodes")
        wanted = open_to(listed, every=props["image"] == "airflow")
        reference = _reference(props)
        if props["nodes"]:
            if not props["own"]:
                images.build(props["image"], props["source"])
            lacking = [node for node in wanted if node in props["nodes"] and not _has(node, reference)]
            if lacking:
                with image_archive(reference) as archive:
                    load(lacking, archive)
        elif not props["own"]:  # which nodes fetch as their cluster has it
            self._check(listed, wanted, reference)
        return CreateResult(reference, {**props, "reference": reference})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        return DiffResult(changes=olds["reference"] != _reference(news) or olds["nodes"] != news["nodes"])

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    @staticmethod
    def _check(listed: Sequence[Object], wanted: Sequence[str], reference: str) -> None:
        for node in listed:
            told = node["status"].get("images", ())
            names = {name for each in told for name in each.get("names", ())}
            lacking = len(told) < MOST_TOLD and not names & {reference, full_name(reference)}
            if node["metadata"]["name"] in wanted and lacking:
                raise LabError(
                    f"the node {node['metadata']['name']} lacks the image {reference}, and is no container of this "
                    "machine: build it with `lab images build` and load it into the cluster as its makers say, then "
                    "run `up` again"
                )


def _reference(props: Props) -> str:
    return str(props["own"] or images.reference(props["image"], props["source"]))


def _has(node: str, reference: str) -> bool:
    command = ["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "list", "-q", f"name=={full_name(reference)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return full_name(reference) in done.stdout


@contextmanager
def image_archive(reference: str) -> Iterator[Path]:
    """An image as a file; those of this project are kept in the cache, as to save one takes longer than to load it."""

    def save(folder: Path) -> None:
        with daemon(timeout=images.PATIENCE) as client, (folder / "image.tar").open("wb") as file:
            for chunk in client.images.get(reference).save(named=reference):
                file.write(chunk)

    repository, _, tag = reference.rpartition("/")[2].partition(":")
    if not tag.startswith(images.OWN):
        yield artefact(f"archive-{repository}", tag, save) / "image.tar"
        return
    with tempfile.TemporaryDirectory(prefix="airflow-lab-") as folder:
        save(Path(folder))
        yield Path(folder, "image.tar")


class NodeImage(Resource, module="kubernetes", name="NodeImage"):
    """An image on the nodes of a cluster; it outlives the lab.

    Args:
        own: name and tag of the user's, instead of this project's; "": none.

    Attributes:
        reference: name and tag.
    """

    reference: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        image: str,
        source: images.Source,
        kubeconfig: pulumi.Input[str],
        nodes: pulumi.Input[Sequence[str]],
        own: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "image": image,
            "source": source,
            "own": own,
            "kubeconfig": kubeconfig,
            "nodes": nodes,
            "reference": None,
        }
        super().__init__(_NodeImageProvider(), name, props, opts)


class _PublishedPortProvider(ResourceProvider):
    def check(self, _olds: Props, news: Props) -> CheckResult:
        """A port that is asked for and taken is told before anything is made, where the cluster is known by then."""
        if news["wanted"] and isinstance(news["kubeconfig"], str) and isinstance(news["namespace"], str):
            self._chosen(news)
        return CheckResult(news, [])

    def create(self, props: Props) -> CreateResult:
        number, address = self._chosen(props)
        return CreateResult(str(number), {**props, "number": number, "address": address})

    def _chosen(self, props: Props) -> tuple[int, str]:
        """A free NodePort that the lab has not chosen for another service, and where this machine reaches it.

        Raises:
            LabError: there is none, or none that leads to the port that is asked for.
        """
        api, own = cluster(props["kubeconfig"]), (props["namespace"], props["service"])
        taken: dict[int, tuple[str, str]] = {}
        for service in api.items("/api/v1/services"):
            metadata = service["metadata"]
            for port in service["spec"].get("ports", ()):
                if "nodePort" in port:
                    taken[int(port["nodePort"])] = (metadata["namespace"], metadata["name"])
        wanted = int(props["wanted"] or 0)
        for number in NODE_PORTS:
            address = self._address(api, props["nodes"], number)
            fits = not wanted or not address or address.endswith(f":{wanted}")
            if address and fits and taken.get(number) in (None, own) and number not in props["others"]:
                return number, address
        if wanted:
            raise UsageError(
                f"no free NodePort of the cluster leads to port {wanted} of this machine; leave out --port, or take a "
                "cluster of its own with --dedicated"
            )
        raise LabError(
            f"the NodePorts {NODE_PORTS.start} to {NODE_PORTS.stop - 1} of the cluster are all taken; take a lab down, "
            "or take a cluster of its own with --dedicated"
        )

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        keys = ("namespace", "service", "nodes", "wanted")
        return DiffResult(changes=any(olds[key] != news[key] for key in keys))

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    @staticmethod
    def _address(api: Cluster, nodes: Sequence[str], number: int) -> str | None:
        """Where this machine reaches a NodePort: on loopback, else at a node."""
        if nodes:
            return published(nodes, number)
        for node in api.items("/api/v1/nodes"):
            for kind in ("InternalIP", "ExternalIP"):
                for each in node["status"].get("addresses", ()):
                    if each["type"] == kind:
                        return f"{each['address']}:{number}"
        return None


class PublishedPort(Resource, module="kubernetes", name="PublishedPort"):
    """A NodePort that leads from this machine to a service, chosen from those that are free.

    Attributes:
        number: of the NodePort.
        address: `host:port` for this machine.
    """

    number: pulumi.Output[int]
    address: pulumi.Output[str]

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(_PublishedPortProvider(), name, {**props, "number": None, "address": None}, opts)


def _living(pods: Sequence[Object]) -> list[Object]:
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _statuses(pod: Object, container: str) -> list[Object]:
    return [each for each in pod["status"].get("containerStatuses", ()) if each["name"] == container]


class _ServicePodProvider(ResourceProvider):
    """The pod of a service that is up to its work; of one that an autoscaler scales, any of them."""

    def create(self, props: Props) -> CreateResult:
        return CreateResult(str(props["name"]), self._ready(props, fresh=True))

    def _ready(self, props: Props, fresh: bool) -> Props:
        """Wait for the pod; one that is not new may have been started again, as by a reboot of its node."""
        api = cluster(props["kubeconfig"])
        name, namespace, container = str(props["name"]), str(props["namespace"]), str(props["container"])
        seen: list[Object] = []

        def said() -> str:
            if not seen:
                return ""
            pod = seen[-1]["metadata"]["name"]
            lines = last_lines(api, namespace, pod, container)
            return f"{plight(api, seen[-1])}\nthe last lines of its log (`kubectl logs {pod}`):\n{lines}"

        def ready() -> tuple[Object | None, str]:
            pods = _living(self._pods(api, props))
            if not pods:
                return (NO_POD if props["scaled"] else None), "it has no pod"
            pod = pods[0 if props["scaled"] else -1]  # the newest may be one more that has only begun
            seen.append(pod)
            statuses = _statuses(pod, container)
            if fresh and any(each["restartCount"] for each in statuses):
                raise LabError(f"{name} ended while it started; {said()}")
            if (len(pods) > 1 and not props["scaled"]) or not any(each["ready"] for each in statuses):
                return None, f"its {len(pods)} pods are not ready"
            if not props["log"]:
                return pod, "ready"
            log = last_lines(api, namespace, pod["metadata"]["name"], container, 2000)
            if re.search(str(props["log"]), log):
                return pod, "its log says so"
            return None, f"its log does not match {props['log']} yet"

        pod = until(ready, what=f"{name} to be ready", timeout=float(props["timeout"]), interval=0.3, detail=said)
        return {**props, "pod": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        keys = ("template", "log", "selector", "namespace", "scaled")
        if any(olds.get(key) != news[key] for key in keys):
            return DiffResult(changes=True)
        if news["scaled"]:  # which pods there are is its autoscaler's business
            return DiffResult(changes=False)
        pods = _living(self._pods(cluster(news["kubeconfig"]), news))
        # of several, as after a `kubectl scale`, the newest go first when there are too many
        own = [pod for pod in pods if pod["metadata"]["uid"] == olds["uid"]]
        ready = any(each["ready"] for pod in own for each in _statuses(pod, str(news["container"])))
        return DiffResult(changes=not ready)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self._ready(news, fresh=False))

    @staticmethod
    def _pods(api: Cluster, props: Props) -> list[Object]:
        path = f"/api/v1/namespaces/{props['namespace']}/pods"
        found = api.items(path, labelSelector=props["selector"])
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


class ServicePod(Resource, module="kubernetes", name="ServicePod"):
    """Done when the pod of a service is ready, and its log says what it must.

    Attributes:
        pod: its name.
    """

    pod: pulumi.Output[str]

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(_ServicePodProvider(), name, {**props, "pod": None, "uid": None}, opts)
