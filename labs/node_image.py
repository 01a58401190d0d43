"""The node image of kind clusters, built from Go modules and Debian packages alone: no image registry is needed.

Each program is built once and kept in the cache, so that a build that was interrupted goes on where it was; the image
itself is kept there too. Source: https://kind.sigs.k8s.io/docs/design/node-image/
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.types import Mount

from labs import go_programs
from labs.cache import IMAGES, Tell, artefact, digest
from labs.daemon import daemon
from labs.errors import LabError, last_words
from labs.go_programs import Program
from labs.images import (
    PATIENCE,
    REPOSITORY,
    base_image,
    docker_build,
    only_one,
    size,
)
from labs.images import pull as pull_image
from labs.waiting import until

NODE = IMAGES / "node"

OFFICIAL = "kindest/node:v1.37.0"
"""The node image that kind v0.33.0 comes with."""


KUBERNETES = (
    "kubeadm",
    "kubelet",
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)


def version() -> str:
    """The Kubernetes release that `images/node/kubernetes/go.mod` pins, as `v1.34.4`."""
    pinned = re.search(r"k8s\.io/kubernetes (v\S+)", (NODE / "kubernetes" / "go.mod").read_text())
    assert pinned
    return pinned[1]


def _release() -> tuple[str, ...]:
    """What Kubernetes' programs are told at their making of the release that they are."""
    major, minor, _ = version().removeprefix("v").split(".")
    known = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    return tuple(f"-X k8s.io/component-base/version.{key}={value}" for key, value in known.items())


PROGRAMS: Mapping[str, Program] = {
    **{name: Program("node/kubernetes", f"k8s.io/kubernetes/cmd/{name}", _release()) for name in KUBERNETES},
    "kind": Program("node/kind", "sigs.k8s.io/kind"),
    "etcd": Program("node/etcd", "go.etcd.io/etcd/server/v3"),
    "coredns": Program("node/coredns", "."),
    "local-path-provisioner": Program("node/provisioner", "github.com/rancher/local-path-provisioner"),
    "kube-router": Program("node/kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"),
}
"""By the name of the file."""

PROVISIONER, HELPER = f"{REPOSITORY}/local-path-provisioner", f"{REPOSITORY}/local-path-helper"
ROUTER = f"{REPOSITORY}/kube-router"


def kind_command(tell: Tell = lambda _: None) -> str:
    """The kind CLI: that of the PATH, else one that is built once."""
    return shutil.which("kind") or str(PROGRAMS["kind"].built("kind", tell))


def reference() -> str:
    """Name and tag of the node image as this checkout has it."""
    modules = [each.key for name, each in PROGRAMS.items() if name != "kind"]
    files = [path.read_bytes() for path in (Path(__file__), *sorted(NODE.iterdir())) if path.is_file()]
    return f"{REPOSITORY}/node:{digest(*modules, *files)}"


def sizes() -> list[tuple[str, int | None]]:
    """Name and tag, and bytes where the daemon has it, of that of this project and of kind's own."""
    with daemon() as client:
        return [(name, size(client, name)) for name in (reference(), OFFICIAL)]


def at_hand(client: Any) -> tuple[str, str] | None:
    """The node image that the daemon has, and why it is used: kind's own first."""
    found = [tag for image in client.images.list("kindest/node") for tag in image.tags]
    if found:
        return found[0], "kind's own"
    if size(client, reference()) is not None:
        return reference(), "built by this project, as Docker has none of kind's own"
    return None


def choose(tell: Tell = lambda _: None) -> str:
    """The node image to use: kind's own where there is a way to get it, else that of this project.

    Raises:
        LabError: no daemon answers, or the image cannot be built.
    """
    with daemon() as client:
        found = at_hand(client)
        if found:
            return found[0]
    try:
        return pull(tell)
    except LabError:  # no registry of images is reached
        return build(tell)


def pull(tell: Tell = lambda _: None) -> str:
    """The name of kind's own node image, fetched when the daemon does not have it.

    Raises:
        LabError: no daemon answers, or no registry of images is reached.
    """
    with daemon(timeout=PATIENCE) as client:
        pull_image(client, "node", OFFICIAL, tell)
    return OFFICIAL


def build(tell: Tell = lambda _: None) -> str:
    """The node image's name and tag; built, or taken from the cache, when the daemon does not have it.

    Raises:
        LabError: no daemon, no Go, no registry of packages, no room.
    """
    name = reference()
    with daemon(timeout=PATIENCE) as client, only_one("node"):
        kind_command(tell)
        if size(client, name) is None:
            archive = artefact("node", name.rpartition(":")[2], lambda folder: _make(client, name, folder, tell))
            if size(client, name) is None:
                tell("node: loading what was built before")
                with (archive / "node.tar").open("rb") as stream:
                    client.images.load(stream)
            go_programs.forget_caches()
    return name


def _make(client: Any, name: str, folder: Path, tell: Tell) -> None:
    programs = {
        name: each.built(name, tell) for name, each in PROGRAMS.items() if name != "kind"
    }  # Go itself builds in parallel
    base = base_image(client, tell)
    tell("node: the images of the control plane")
    wanted = _wanted(programs["kubeadm"])
    services = _services(client, base, programs, wanted)
    tell("node: building")
    pause = next(image for image in wanted if "/pause:" in image)
    raw = f"{name}-raw"
    replaced = {
        "containerd.toml": {"PAUSE": pause},
        "default-cni.yaml": {"ROUTER": f"docker.io/{ROUTER}:{version()}"},
        "default-storage.yaml": {
            "PROVISIONER": f"docker.io/{PROVISIONER}:{version()}",
            "HELPER": f"docker.io/{HELPER}:{version()}",
        },
    }
    with tempfile.TemporaryDirectory(prefix="airflow-lab-") as context:
        for path in (each for each in NODE.iterdir() if each.is_file()):
            text = path.read_text()
            for mark, value in replaced.get(path.name, {}).items():
                text = text.replace(mark, value)
            Path(context, path.name).write_text(text)
        Path(context, "version").write_text(f"{version()}\n")
        for each in ("kubeadm", "kubelet", "kubectl"):
            shutil.copy(programs[each], context)
        docker_build(client, context, "node.dockerfile", raw, {"BASE": base})
    tell("node: putting the images in")
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            archive = Path(place, "images.tar")
            _save(client, services, archive)
            _import(client, raw, archive, name)
        _save(client, [name], folder / "node.tar")
    finally:
        for each in (raw, *services):
            client.images.remove(each, force=True)


def _wanted(kubeadm: Path) -> list[str]:
    """The images of a control plane, with the names that kubeadm gives them."""
    done = subprocess.run(
        [str(kubeadm), "config", "images", "list", "--kubernetes-version", version()],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _services(client: Any, base: str, programs: Mapping[str, Path], wanted: Sequence[str]) -> list[str]:
    """An image for each service, of its program alone where that needs no other."""
    tooled = (
        f"FROM {base}\nRUN apt-get update -qq && apt-get install -qq --no-install-recommends {{}} >/dev/null && "
        "rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*\n"
    )
    recipes = {
        "kube-proxy": tooled.format("iptables conntrack kmod"),
        "kube-router": tooled.format("iptables ipset"),
        "pause": tooled.format("catatonit") + 'ENTRYPOINT ["/usr/bin/catatonit", "-P"]\n',
        HELPER: f"FROM {base}\n",
    }
    images = [*wanted, *(f"{each}:{version()}" for each in (PROVISIONER, HELPER, ROUTER))]
    for image in images:
        name = next((each for each in recipes if each in image), image.rpartition("/")[2].partition(":")[0])
        with tempfile.TemporaryDirectory(prefix="airflow-lab-") as context:
            text = recipes.get(name, "FROM scratch\n")
            if name in programs:
                shutil.copy(programs[name], context)
                text += f"COPY {name} /usr/local/bin/{name}\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
                text += f'ENTRYPOINT ["/usr/local/bin/{name}"]\n'
            Path(context, "Dockerfile").write_text(text)
            docker_build(client, context, "Dockerfile", image, {})
    return images


def _save(client: Any, names: Sequence[str], archive: Path) -> None:
    with archive.open("wb") as file:
        for chunk in client.api._stream_raw_result(_get(client, names), chunk_size=2**20, decode=False):
            file.write(chunk)


def _get(client: Any, names: Sequence[str]) -> Any:
    """Several images in one archive, where they share layers; the package knows how for one alone."""
    answer = client.api._get(client.api._url("/images/get"), params={"names": list(names)}, stream=True)
    client.api._raise_for_status(answer)
    return answer


def _import(client: Any, raw: str, archive: Path, name: str) -> None:
    """Have the node's own containerd take the images, and commit what it has made of them."""
    container = client.containers.create(
        raw,
        entrypoint=["sleep", "infinity"],
        privileged=True,
        network_mode="none",
        mounts=[Mount("/mnt", str(archive.parent), type="bind", read_only=True)],  # a volume would be committed, too
    )
    try:
        container.start()
        container.exec_run(["containerd"], detach=True, privileged=True)

        def answers() -> tuple[bool | None, str]:
            code, said = container.exec_run(["ctr", "version"])
            return (True if code == 0 else None), said.decode(errors="replace").strip()

        until(answers, what="containerd of the node image to answer", timeout=60)
        code, said = container.exec_run(
            ["ctr", "-n", "k8s.io", "images", "import", "--no-unpack", f"/mnt/{archive.name}"], privileged=True
        )
        if code:
            raise LabError(f"the node image could not take its images: {last_words(said.decode().splitlines())}")
        container.exec_run(["pkill", "-x", "containerd"])

        def ended() -> tuple[bool | None, str]:
            return (True if container.exec_run(["pgrep", "-x", "containerd"])[0] else None), "it runs"

        until(ended, what="containerd of the node image to end", timeout=60)
        repository, _, tag = name.partition(":")
        configuration = {"Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"], "Cmd": []}
        container.commit(repository, tag, conf=configuration)
    finally:
        container.remove(v=True, force=True)
