"""A kind cluster: a control plane and two workers in containers of this machine, made by the kind CLI.

The labs of a checkout share one, each with a namespace of its own; it goes with the last of them.
Source: https://kind.sigs.k8s.io/docs/user/configuration/
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import filelock
import pulumi
import yaml
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.clusters.base import GPU, ZONE, check_usable
from labs import node_image
from labs.cluster import Cluster, cluster
from labs.daemon import daemon
from labs.errors import LabError
from labs.paths import CHECKOUT, PORTS, cache_root, make_private, state_root
from labs.ports import registered
from labs.waiting import until

NODE_PORTS = range(30007, 30015)
"""NodePorts that lead to loopback of this machine, one for each lab on the cluster; the chart's is the first."""

POD_NETWORK = "/usr/local/bin/pod-network"
"""What only a node of this project's image has."""

RESOLV_CONF = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where this machine's name servers are."""

NOT_READY = "node.kubernetes.io/not-ready"
"""The taint of a node that does not run pods; it is taken away a moment after the node says that it is ready."""

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
"""How many sets of watched files all processes of a user may have."""

SYS_RESOURCE = 24
"""Number of CAP_SYS_RESOURCE. https://man7.org/linux/man-pages/man7/capabilities.7.html"""

Props = dict[str, Any]


def cluster_name(lab: str, dedicated: bool) -> str:
    """What kind knows the cluster of a lab by."""
    return f"airflow-lab-{lab}".replace("_", "-") if dedicated else f"airflow-labs-{CHECKOUT}"


def configuration(name: str, *, ports: Sequence[int], folder: Path, built: bool, bounded: bool) -> dict[str, Any]:
    """kind's configuration: zones a and b, the second of them for GPU work.

    Args:
        ports: of this machine, one for each of `NODE_PORTS`.
        folder: of this machine, that the nodes see under the same path.
        built: whether the nodes are of this project's image.
        bounded: whether this machine has no CAP_SYS_RESOURCE to give.
    """
    kubelet: dict[str, Any] = {
        "kind": "KubeletConfiguration",
        "syncFrequency": "10s",  # 1m by default: how soon a changed DAG is seen by pods
    }
    # The API server goes to the pods of an APIService itself: by its Service it would first ask whoever is there before
    # kube-proxy knows the way, perhaps somebody outside of the cluster, and stay on that connection.
    routing = "enable-aggregator-routing"
    arguments = {"v1beta3": {routing: "true"}, "v1beta4": [{"name": routing, "value": "true"}]}  # kind takes what fits
    patches: list[Any] = [kubelet]
    for version, given in arguments.items():
        settings = {"apiVersion": f"kubeadm.k8s.io/{version}", "kind": "ClusterConfiguration"}
        patches.append({**settings, "apiServer": {"extraArgs": given}})
    containerd = []
    if built:
        kubelet["resolvConf"] = "/kind/resolv.conf"  # or CoreDNS would ask itself
        # as in kind's own image: a folder that says, while nodes run, from where they fetch images
        containerd.append('[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n')
    if bounded:
        kubelet["featureGates"] = {"KubeletInUserNamespace": True}
        containerd.append('[plugins."io.containerd.grpc.v1.cri"]\n  restrict_oom_score_adj = true\n')
    joining = {
        "kind": "JoinConfiguration",
        "nodeRegistration": {"taints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]},
    }
    mounts = [{"hostPath": str(folder), "containerPath": str(folder)}]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": name,
        "networking": {"apiServerAddress": "127.0.0.1"},
        "kubeadmConfigPatches": [yaml.safe_dump(patch) for patch in patches],
        "containerdConfigPatches": containerd,
        "nodes": [
            {
                "role": "control-plane",
                "extraPortMappings": [
                    {"containerPort": inside, "hostPort": outside, "listenAddress": "127.0.0.1"}
                    for inside, outside in zip(NODE_PORTS, ports, strict=True)
                ],
            },
            {"role": "worker", "labels": {ZONE: "a"}, "extraMounts": mounts},
            {
                "role": "worker",
                "labels": {ZONE: "b", f"{GPU}.present": "true"},
                "extraMounts": mounts,
                "kubeadmConfigPatches": [yaml.safe_dump(joining)],
            },
        ],
    }


def name_servers(*texts: str) -> str:
    """A resolv.conf for pods: the first of these with a server that they may reach, which is none on loopback.

    Where there is none, one that never answers: CoreDNS wants one, and pods find each other without it.
    """
    for text in texts:
        lines = [line for line in text.splitlines() if line.startswith("nameserver ")]
        usable = [line for line in lines if not line.split()[1].startswith(("127.", "::1"))]
        if usable:
            return "\n".join([*usable, ""])
    return "nameserver 192.0.2.1\n"


def lacks_sys_resource(status: str) -> bool:
    """Whether the capabilities that `/proc/self/status` shows leave out CAP_SYS_RESOURCE."""
    line = next((line for line in status.splitlines() if line.startswith("CapBnd:")), "CapBnd: ffffffffffffffff")
    return not int(line.split()[1], 16) >> SYS_RESOURCE & 1


def kind(*arguments: str, text: str = "") -> str:
    """What the kind CLI prints; it is taken from the PATH, else built once.

    Raises:
        LabError: it fails; with its last words.
    """
    done = subprocess.run(
        [node_image.kind_command(), *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        by_docker = [line for line in lines if line.startswith("docker: Error")]
        told = by_docker or [line for line in lines if line.startswith(("ERROR", "Command Output"))]
        words = "; ".join(told or lines[-1:] or ["no word"]).removeprefix("ERROR: ")
        raise LabError(f"`kind {' '.join(arguments[:2])}` failed: {words}")
    return done.stdout


class Users:
    """Which labs use a cluster; one command at a time makes or removes it."""

    def __init__(self, name: str) -> None:
        root = make_private(cache_root(), 0o755)
        self._path = root / f"kind-{name}.json"
        self._lock = filelock.FileLock(root / f"kind-{name}.lock", timeout=900)

    def __enter__(self) -> Users:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def known(self) -> set[str]:
        """Who uses it."""
        try:
            return set(json.loads(self._path.read_text()))
        except (OSError, ValueError):
            return set()

    def note(self, home: str, uses: bool) -> list[str]:
        """Who uses it from now on; whose lab directory is gone does not."""
        users = {user for user in self.known() if Path(user).parent.exists()} - {home} | ({home} if uses else set())
        if users:
            self._path.write_text(json.dumps(sorted(users)))
        else:
            self._path.unlink(missing_ok=True)
        return sorted(users)


def node_containers(client: Any, name: str, *, every: bool = True) -> list[Any]:
    """The containers that are the nodes of a kind cluster, the control plane first."""
    label = f"io.x-k8s.kind.cluster={name}"
    found = client.containers.list(all=every, filters={"label": label}, ignore_removed=True)
    return sorted(found, key=lambda each: str(each.name))


class _KindProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        name = str(props["name"])
        with Users(name) as users:
            fresh = not self._exists(name)
            users.note(str(props["home"]), True)  # first, so that `down` finds what a crash leaves
            try:
                if fresh:
                    self._make(name, props)
                kubeconfig, nodes = _run(name)
                check_usable(cluster(kubeconfig), f"the kind cluster {name}")
            except BaseException:
                if fresh:
                    kind("delete", "cluster", "--name", name)
                    users.note(str(props["home"]), False)
                raise
        return CreateResult(name, {**props, "kubeconfig": kubeconfig, "nodes": nodes})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = ["name"] if olds["name"] != news["name"] else []
        with daemon() as client:
            up = [each.name for each in node_containers(client, news["name"]) if each.status == "running"]
        return DiffResult(changes=bool(replaces) or sorted(up) != sorted(olds["nodes"]), replaces=replaces)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        name = str(props["name"])
        with Users(name) as users:
            if not users.note(str(props["home"]), False):
                kind("delete", "cluster", "--name", name)

    @staticmethod
    def _exists(name: str) -> bool:
        with daemon() as client:
            return bool(node_containers(client, name))

    @staticmethod
    def _make(name: str, props: Props) -> None:
        image = node_image.choose()
        wanted = props["port"]
        one_at_a_time = filelock.FileLock(cache_root() / "kind.lock", timeout=900)  # two would choose the same ports
        with one_at_a_time, tempfile.TemporaryDirectory(prefix="airflow-lab-") as folder:
            free = [port for port in _free_ports() if port != wanted]
            text = yaml.safe_dump(
                configuration(
                    name,
                    ports=[*([int(wanted)] if wanted else []), *free][: len(NODE_PORTS)],
                    folder=make_private(state_root(), 0o755),
                    built=image == node_image.reference(),
                    bounded=lacks_sys_resource(Path("/proc/self/status").read_text()),
                )
            )
            place = ["--kubeconfig", str(Path(folder, "kubeconfig"))]  # the user's own stays as it is
            kind("create", "cluster", "--name", name, "--image", image, "--config", "-", *place, text=text)


def _run(name: str) -> tuple[str, list[str]]:
    """Have all nodes of a cluster run and be ready: its kubeconfig, and their names."""
    woken = _start(name)
    kubeconfig = kind("get", "kubeconfig", "--name", name)
    return kubeconfig, _settle(name, cluster(kubeconfig), woken)


def _start(name: str) -> dict[str, datetime]:
    """A reboot leaves the nodes' containers stopped, or started in any order: those started here, and when."""
    woken = {}
    with daemon() as client:
        for each in node_containers(client, name):
            if each.status != "running":
                woken[str(each.name)] = datetime.now(timezone.utc).replace(microsecond=0)
                each.start()
    return woken


def _settle(name: str, api: Cluster, woken: Mapping[str, datetime]) -> list[str]:
    """Give the nodes a network of pods where their image leaves that to us, and wait until they are ready."""
    with daemon() as client:
        containers = node_containers(client, name)
        own = containers[0].exec_run(["test", "-x", POD_NETWORK])[0] == 0

        def subnets() -> tuple[dict[str, str] | None, str]:
            found = {each["metadata"]["name"]: each["spec"].get("podCIDR", "") for each in _nodes(api)}
            whole = len(found) == len(containers) and all(found.values())
            return (found if whole else None), f"{len(found)} of {len(containers)} nodes have joined"

        what = f"the nodes of {name} to join"
        known = until(subnets, what=what, timeout=180, interval=0.5, detail=_bounds)
        if own and not _ready(api)[0]:  # what was written once is there still
            lines = "".join(f"{node} {subnet}\n" for node, subnet in sorted(known.items()))
            servers = name_servers(*(path.read_text() for path in RESOLV_CONF if path.is_file()))
            files = {"/kind/resolv.conf": servers, "/kind/pod-network": lines}
            for container in containers:
                for path, text in files.items():
                    _write(container, path, text)
        until(lambda: _ready(api), what=f"the nodes of {name} to be ready", timeout=180, interval=0.5)
        until(lambda: _told(api, woken), what=f"the nodes of {name} to say what runs", timeout=180, interval=0.5)
        return [str(each.name) for each in containers]


def _bounds() -> str:
    """What ails nodes that start and do not join: a kubelet that may watch no file says so only in its own log."""
    given = INOTIFY.read_text().strip() if INOTIFY.is_file() else "unknown"
    return (
        f"fs.inotify.max_user_instances is {given}, and a kind cluster takes some 50 of them: if others run here, take "
        "one down or raise that with sysctl (https://kind.sigs.k8s.io/docs/user/known-issues)"
    )


def _free_ports() -> list[int]:
    import psutil

    # what the connections of a cluster that is gone have left behind takes no port
    listening = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    taken = {each.laddr.port for each in listening if each.laddr}
    with registered() as given:
        taken |= {port for own in given.values() for port in own.values()}
    preferred = [*NODE_PORTS, *(port for port in PORTS if port not in NODE_PORTS)]
    return [port for port in preferred if port not in taken]


def _nodes(api: Cluster) -> list[dict[str, Any]]:
    try:
        return api.items("/api/v1/nodes")
    except LabError:  # it does not answer yet, or does not know its administrator yet
        return []


def _ready(api: Cluster) -> tuple[bool | None, str]:
    lacking, nodes = [], _nodes(api)
    if not nodes:
        return None, "it does not answer"
    for node in nodes:
        conditions = {each["type"]: each for each in node["status"].get("conditions", ())}
        ready = conditions.get("Ready", {})
        if ready.get("status") != "True":
            lacking.append(f"{node['metadata']['name']}: {ready.get('message', 'it has not reported yet')}")
        elif NOT_READY in {each["key"] for each in node["spec"].get("taints", ())}:
            lacking.append(f"{node['metadata']['name']}: it is ready, but pods may not go there yet")
    return (None if lacking else True), "; ".join(lacking) or "ready"


def _told(api: Cluster, woken: Mapping[str, datetime]) -> tuple[bool | None, str]:
    """Whether nothing is said to run since before its node was started: until a node says so, all is as it was."""
    stale = []
    try:
        pods = api.items("/api/v1/pods") if woken else []
    except LabError as error:
        return None, str(error)
    for pod in pods:
        since = woken.get(pod["spec"].get("nodeName", ""))
        states = [each["state"] for each in pod["status"].get("containerStatuses", ())]
        begun = [state["running"]["startedAt"] for state in states if "running" in state]
        if since and any(datetime.fromisoformat(each.replace("Z", "+00:00")) < since for each in begun):
            stale.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return (None if stale else True), f"as before they stood still: {', '.join(stale)}" if stale else "all is told"


def _write(container: Any, path: str, text: str) -> None:
    code, said = container.exec_run(["sh", "-c", 'printf "%s" "$1" >"$2"', "sh", text, path])
    if code:
        raise LabError(f"{path} could not be written in the node {container.name}: {said.decode().strip()}")


class KindCluster(Resource, module="kubernetes", name="KindCluster"):
    """A kind cluster.

    Attributes:
        kubeconfig: text, a secret.
        nodes: names of its containers.
    """

    kind: ClassVar[str] = "kind"
    sees_home: ClassVar[bool] = True
    kubeconfig: pulumi.Output[str]
    nodes: pulumi.Output[Sequence[str]]

    def __init__(
        self,
        home: Path,
        *,
        dedicated: bool = False,
        port: int | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        hidden = pulumi.ResourceOptions(additional_secret_outputs=["kubeconfig"])
        props = {
            "name": cluster_name(home.parent.name, dedicated),
            "home": str(home),
            "port": port or 0,
            "kubeconfig": None,
            "nodes": None,
        }
        super().__init__(_KindProvider(), "cluster", props, pulumi.ResourceOptions.merge(hidden, opts))


def published(nodes: Sequence[str], node_port: int) -> str | None:
    """`host:port` of this machine that leads to a NodePort of these nodes; None where none does."""
    with daemon() as client:
        for node in nodes:
            for found in client.containers.get(node).attrs["NetworkSettings"]["Ports"].get(f"{node_port}/tcp") or ():
                return f"{found['HostIp']}:{found['HostPort']}"
    return None


def load(nodes: Sequence[str], archive: Path) -> None:
    """Have the containerd of each node take the images of an archive, as `kind load image-archive` does.

    Raises:
        LabError: a node does not take them.
    """

    def one(node: str) -> None:
        command = ["docker", "exec", "--privileged", "-i", node, "ctr", "-n", "k8s.io", "images", "import", "-"]
        with archive.open("rb") as stream:
            done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(
                f"the node {node} could not take an image ({done.stderr.strip().splitlines()[-1]}); make room on the "
                "disk of Docker and run `up` again"
            )

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, nodes))


def collect() -> list[str]:
    """Remove the clusters of which no lab is left, and say which."""
    removed = []
    for path in sorted(cache_root().glob("kind-*.json")):
        name = path.stem.removeprefix("kind-")
        with Users(name) as users:
            if users.known() and not users.note("", False):
                kind("delete", "cluster", "--name", name)
                removed.append(f"the kind cluster {name}, of which no lab is left")
    return removed


def _used(home: Path) -> list[str]:
    """The clusters that a lab may use: its own, and that of all."""
    return [cluster_name(home.parent.name, dedicated) for dedicated in (True, False)]


def wake(home: Path) -> None:
    """Have the nodes of a lab's clusters run that stand still, so that what it has there can go; none is no error.

    Raises:
        LabError: they do not come up; says how to go on without them.
    """
    for name in _used(home):
        with Users(name) as users:
            if str(home) not in users.known():
                continue
            with daemon() as client:
                nodes = {str(each.name): each.status for each in node_containers(client, name)}
            if set(nodes.values()) <= {"running"}:
                continue
            try:
                _run(name)
            except LabError as error:
                raise LabError(
                    f"{error}; if no lab there need live, remove the cluster with `docker rm -f {' '.join(nodes)}`, "
                    "and run `down` again"
                ) from error


def release(home: Path) -> None:
    """Remove the clusters that a lab was the last to use, also those that a crash left; none is no error."""
    for name in _used(home):
        with Users(name) as users:
            if users.known() and not users.note(str(home), False):
                kind("delete", "cluster", "--name", name)
