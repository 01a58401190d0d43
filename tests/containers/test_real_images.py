"""Images on a real daemon: built side by side, pulled from a registry of the test's own, and what is in them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from labs import images
from labs.daemon import daemon
from labs.errors import LabError
from labs.paths import PROJECT_ROOT
from tests.containers.probe_image import archive, probe_image

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextmanager
def registry() -> Iterator[tuple[str, str]]:
    """A registry on loopback with one image: its name without a tag, which is `1`, and its digest.

    Source: https://distribution.github.io/distribution/spec/api/
    """
    layer = archive()
    packed = gzip.compress(layer, mtime=0)
    files = {"type": "layers", "diff_ids": [digest(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": files}).encode()
    described = [
        {"mediaType": f"application/vnd.docker.{kind}", "size": len(data), "digest": digest(data)}
        for kind, data in (("container.image.v1+json", config), ("image.rootfs.diff.tar.gzip", packed))
    ]
    whole = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    manifest = json.dumps(whole).encode()
    there = {
        "/v2/": b"{}",
        "/v2/labs/probe/manifests/1": manifest,
        f"/v2/labs/probe/manifests/{digest(manifest)}": manifest,
        **{f"/v2/labs/probe/blobs/{digest(data)}": data for data in (config, packed)},
    }

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = there.get(self.path)
            code = 404 if body is None else 200
            body = body or b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
            self.send_response(code)
            self.send_header("Content-Type", MANIFEST if body == manifest else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}/labs/probe", digest(manifest)
        server.shutdown()


def pull(name: str) -> list[str]:
    """What is told while that is pulled."""
    said: list[str] = []
    with daemon() as client:
        images.pull(client, "probe", name, said.append)
    return said


def test_an_image_is_pulled_with_progress_by_its_tag_or_digest() -> None:
    with registry() as (name, content), daemon() as client:
        for reference in (f"{name}:1", f"{name}@{content}", f"{name}:1@{content}"):
            try:
                said = pull(reference)
                assert said[0] == f"probe: pulling {reference}" and said[-1] == "probe: 1 of 1 layers"
                assert images.size(client, reference)
                assert pull(reference) == []
            finally:
                client.images.remove(client.images.get(reference).id, force=True)


def test_an_image_that_a_registry_lacks_and_a_silent_registry_are_told() -> None:
    with registry() as (name, _), pytest.raises(LabError, match=r"could not be pulled \(manifest unknown\); check"):
        pull(f"{name}:2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LabError, match=r"could not be pulled \(.*connection refused.*\); check that its registry is"):
        pull(f"127.0.0.1:{port}/labs/probe:1")


def dangling(*of: str) -> list[str]:
    """The layers without a name that builds of these images have left."""
    with daemon() as client:
        return [
            str(each["Id"])
            for image in of
            for each in client.api.images(filters={"dangling": True, "label": f"{images.LAYER}={image}"})
        ]


def test_builds_side_by_side_leave_each_other_alone_and_nothing_behind(tmp_path: Path) -> None:
    slow = "FROM {0} AS first\nRUN echo slow >/x\nFROM {0}\nRUN sleep 2\nCOPY --from=first /x /x\n"
    recipes = {
        "t-slow": slow,
        "t-quick": "FROM {0} AS first\nRUN echo quick >/x\nFROM {0}\nCOPY --from=first /x /x\n",
        "t-failing": "FROM {0} AS first\nRUN echo failing >/x\nFROM {0}\nCOPY --from=first /x /x\nRUN exit 3\n",
    }

    def build(image: str, recipe: str) -> str:
        name = f"{images.REPOSITORY}/{image}:t"
        (tmp_path / image).mkdir()
        (tmp_path / image / "recipe").write_text(recipe)
        with daemon() as client:
            try:
                images.docker_build(client, str(tmp_path / image), "recipe", name, {}, image)
            except LabError as error:
                return str(error)
            client.images.remove(name)
        return ""

    with probe_image() as probe, ThreadPoolExecutor() as pool:
        said = dict(zip(recipes, pool.map(lambda each: build(each, recipes[each].format(probe)), recipes), strict=True))
        assert said.pop("t-failing").startswith("the image t-failing could not be built: ")
        assert said == {"t-slow": "", "t-quick": ""}
        assert dangling(*recipes) == []


def test_a_user_whom_the_daemon_does_not_let_in_is_told() -> None:
    script = (
        "import os; from labs.daemon import daemon; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "with daemon(): pass"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert "LabError: the Docker daemon does not let this user in; add the user to the group docker" in done.stderr


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    """What Docker says of each image that is built, of Debian and Python packages alone."""
    command = [PROJECT_ROOT / "lab", "images", "build"]
    subprocess.run(command, check=True, capture_output=True)
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    assert time.monotonic() - begun <= 5
    with daemon() as client:
        return {image: client.images.get(images.reference(image, "packages")).attrs for image in images.USUAL}


def inside(image: str, *command: str) -> str:
    """What a command says in a container of an image, which reaches nobody."""
    name = images.reference(image, "packages")
    done = subprocess.run(
        ["docker", "run", "--rm", "--network=none", "--entrypoint=", name, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_built_images_are_small_and_run_as_the_user_of_all_services(built: dict[str, Any]) -> None:
    assert {image: found["Config"]["User"] for image, found in built.items()} == dict.fromkeys(built, "50000:0")
    assert built["airflow"]["Size"] <= 0.9 * 2**30
    assert inside("airflow", "id", "-u") == "50000\n" and inside("airflow", "id", "-g") == "0\n"


CHECK = """
from importlib.metadata import distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
there = {canonicalize_name(each.metadata["Name"]): each.version for each in distributions()}
for each in distributions():
    for wanted in map(Requirement, each.requires or ()):
        found = there.get(canonicalize_name(wanted.name))
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            print(each.metadata["Name"], "needs", wanted, "has", found)
print(len(there))
"""
"""What `pip check` looks at: there is no pip."""


def test_the_packages_of_the_airflow_image_fit_each_other(built: dict[str, Any]) -> None:
    assert int(inside("airflow", "python", "-c", CHECK)) > 100  # and nothing else is said


@pytest.mark.parametrize(
    "image", [*images.USUAL, *(pytest.param(image, marks=pytest.mark.long) for image in images.PROGRAMS)]
)
def test_nothing_to_build_with_is_in_a_built_image(image: str) -> None:
    subprocess.run([PROJECT_ROOT / "lab", "images", "build", image], check=True, capture_output=True)
    packages = inside(image, "dpkg-query", "-W", "-f", "${Package}\n").split()
    building = r"(gcc|g\+\+|cpp)(-\d+)?|binutils|make|cmake|git|build-essential|.*-dev|python3-(pip|venv|setuptools)"
    assert [package for package in packages if re.fullmatch(building, package)] == []
    programs = "cc gcc ld as make pip pip3 uv git curl wget"
    looked = f"for each in {programs}; do command -v $each; done; ls /build /root/.cache 2>/dev/null; true"
    assert inside(image, "sh", "-c", looked) == ""
