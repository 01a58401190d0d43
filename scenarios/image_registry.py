"""A node that lacks an image, and a registry of this machine from which it fetches that, as nodes elsewhere do.

Nodes of these labs are given their images before any pod runs; what that saves can be seen only where it is missing.
Sources: https://distribution.github.io/distribution/spec/api/ and https://kind.sigs.k8s.io/docs/user/local-registry/
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from components.clusters.kind import load
from components.platforms.kubernetes.resources import full_name, image_archive
from labs.daemon import daemon
from labs.errors import LabError
from labs.waiting import until

KIND = "application/vnd.docker."

HOSTS = "/etc/containerd/certs.d/docker.io"
"""Where containerd looks for who has images that name no registry."""


@dataclass(frozen=True)
class Blob:
    """What a registry gives out: text, or a part of a file.

    Attributes:
        start: of that part, in bytes.
    """

    kind: str
    digest: str
    size: int
    text: bytes = b""
    file: Path | None = None
    start: int = 0

    def described(self) -> dict[str, Any]:
        """As a manifest refers to it."""
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size}


def contents(archive: Path) -> list[Blob]:
    """The manifest, the configuration and the layers of the one image of an archive, as `docker save` makes it."""
    with tarfile.open(archive) as tar:

        def text(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member
            return member.read()

        (listed,) = json.loads(text("manifest.json"))
        config = _text(f"{KIND}container.image.v1+json", text(listed["Config"]))
        layers = []
        for name, digest in zip(listed["Layers"], json.loads(config.text)["rootfs"]["diff_ids"], strict=True):
            member = tar.getmember(name)
            if member.issym():
                member = tar.getmember(posixpath.normpath(f"{posixpath.dirname(name)}/{member.linkname}"))
            kind = f"{KIND}image.rootfs.diff.tar"
            layers.append(Blob(kind, digest, member.size, file=archive, start=member.offset_data))
    whole = {
        "schemaVersion": 2,
        "mediaType": f"{KIND}distribution.manifest.v2+json",
        "config": config.described(),
        "layers": [each.described() for each in layers],
    }
    return [_text(str(whole["mediaType"]), json.dumps(whole).encode()), config, *layers]


def _text(kind: str, text: bytes) -> Blob:
    return Blob(kind, f"sha256:{hashlib.sha256(text).hexdigest()}", len(text), text)


@contextmanager
def registry(archive: Path, address: str) -> Iterator[tuple[str, list[str]]]:
    """A registry at an address of this machine with the image of an archive, by whatever tag: its URL, and the digests
    that were fetched from it so far.
    """
    manifest, *others = contents(archive)
    there, fetched = {each.digest: each for each in (manifest, *others)}, list[str]()

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place, _, wanted = self.path.partition("?")[0].rpartition("/")
            blob = there.get(wanted, manifest) if place.endswith("/manifests") else there.get(wanted)
            if blob is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", blob.kind)
            self.send_header("Content-Length", str(blob.size))
            self.send_header("Docker-Content-Digest", blob.digest)
            self.end_headers()
            if self.command == "HEAD":
                return
            fetched.append(blob.digest)
            if blob.file is None:
                self.wfile.write(blob.text)
                return
            with blob.file.open("rb") as file:
                file.seek(blob.start)
                left = blob.size
                while left:
                    left -= self.wfile.write(file.read(min(left, 2**20)))

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer((address, 0), Registry) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}", fetched
        finally:
            server.shutdown()


@contextmanager
def lacking(node: str, reference: str) -> Iterator[list[str]]:
    """A node of a kind cluster that lacks an image, and fetches it when a pod wants it; gives what it has fetched.

    Afterwards it has the image, and fetches none any more.

    Raises:
        LabError: the node has it still, as something else of the same contents does.
    """

    def unused() -> tuple[bool | None, str]:
        found = _in_node(node, "ctr -n k8s.io containers list | awk -v name=\"$1\" '$2 == name'", full_name(reference))
        return (None if found else True), f"{len(found.splitlines())} containers are of it"

    until(unused, what=f"{node} to run nothing of {reference}", timeout=90, interval=1)  # or its layers would stay
    with image_archive(reference) as archive:
        try:
            with registry(archive, _gateway(node)) as (url, fetched):
                _in_node(node, f'mkdir -p {HOSTS} && printf %s "$1" >{HOSTS}/hosts.toml', f'[host."{url}"]\n')
                # one image has several names: its tag, its digest, and that of its configuration
                _in_node(
                    node,
                    'ctr -n k8s.io images list | awk -v name="$1" \'$1 == name { d = $3 } { n[$1] = $3 }'
                    " END { for (each in n) if (n[each] == d) print each }' | xargs -r ctr -n k8s.io images rm --sync",
                    full_name(reference),
                )
                if full_name(reference) in _in_node(node, "ctr -n k8s.io images list -q"):
                    raise LabError(f"the node {node} still has the image {reference}")
                yield fetched
        finally:
            _in_node(node, f"rm -rf {HOSTS}")
            if full_name(reference) not in _in_node(node, "ctr -n k8s.io images list -q"):
                load([node], archive)


def _gateway(node: str) -> str:
    """The address of this machine in the network of a node."""
    with daemon() as client:
        networks = client.containers.get(node).attrs["NetworkSettings"]["Networks"]
    return next(str(each["Gateway"]) for each in networks.values() if each["Gateway"])


def _in_node(node: str, script: str, *arguments: str) -> str:
    command = ["docker", "exec", node, "sh", "-ec", script, "sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LabError(f"the node {node} could not be made to lack an image ({said})")
    return done.stdout
