"""Container images of the labs, from one of two sources.

From *packages*, of Debian, Python and Go alone, so that no registry of images is needed: recipes in `images/`. From a
*registry*, the official images and what the labs add to them: recipes in `images/registry/`. An image's tag is a hash
over everything its recipe reads, so one that is there is the right one, and one that is not there is made.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import filelock
import requests
from docker.errors import APIError, BuildError, ImageNotFound

from labs.cache import IMAGES, KEPT, Tell, artefact, digest
from labs.daemon import daemon, said
from labs.errors import LabError, UsageError, last_words, nearest
from labs.go_programs import Program, forget_caches
from labs.paths import PROJECT_ROOT, cache_root, make_private

REPOSITORY = "airflow-executor-labs"
"""What the names of all images begin with."""

SUITE = "bookworm"
"""The Debian release; `images/airflow.lock` has wheels for its Python."""

BASE = (
    "--variant=minbase",
    "--include=ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    # the user of all services, as in Airflow's own image
    '--customize-hook=chroot "$1" useradd --uid 50000 --gid 0 --no-create-home --home-dir /tmp airflow',
)
"""How mmdebstrap makes the base of every image. https://manpages.debian.org/bookworm/mmdebstrap/mmdebstrap.1"""

OWN = "own-"
"""What the tags of users' images begin with."""

Source = Literal["packages", "registry"]

FOLDERS: Mapping[Source, str] = {"packages": ".", "registry": "registry"}
"""Where in `images/` the recipes are, by source."""

RECIPES: Mapping[str, tuple[str, ...]] = {
    "airflow": ("airflow.lock", "schema.sh"),
    "postgres": ("postgres-entrypoint.sh",),
    "redis": (),
    "pgbouncer": (),
    "haproxy": (),
    "versitygw": (),
    "metrics-server": (),
    "keda": (),
    "keda-adapter": (),
}
"""Files of `images/` that the recipes of an image read, by image."""

PROGRAMS: Mapping[str, Program] = {
    "versitygw": Program("versitygw", "github.com/versity/versitygw/cmd/versitygw"),
    "metrics-server": Program("node/metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    "keda": Program("node/keda", "github.com/kedacore/keda/v2/cmd/operator"),
    "keda-adapter": Program("node/keda", "github.com/kedacore/keda/v2/cmd/adapter"),
}
"""Programs that recipes from packages copy, by image and by the name of the file."""

USUAL = tuple(image for image in RECIPES if image not in PROGRAMS)
"""Images that are made when none is named: a program takes minutes, and only an extra needs one."""

LAYER = f"{REPOSITORY}.image"
"""Label of all that a build makes: the image it is for. What has no name of its own is removed by it."""

PATIENCE = 900
"""Seconds that a step of a build may take without a word."""


def _silent(_line: str) -> None:
    """Tell nobody."""


def base() -> str:
    """Name and tag of the Debian that every image begins with."""
    return f"{REPOSITORY}/base:{digest(SUITE, *BASE)}"


def _recipe(image: str, source: Source) -> Path:
    return IMAGES / FOLDERS[source] / f"{image}.dockerfile"


def reference(image: str, source: Source) -> str:
    """Name and tag of an image as this checkout has it.

    Raises:
        UsageError: there is no recipe for it.
    """
    if image not in RECIPES:
        raise UsageError(f"there is no image {image!r}: {nearest(image, RECIPES)}use {', '.join(RECIPES)}")
    files = [path.read_bytes() for path in (_recipe(image, source), *(IMAGES / file for file in RECIPES[image]))]
    programs = [PROGRAMS[image].key] if image in PROGRAMS else []
    read = (base(), *files, _installer(), *programs) if source == "packages" else files
    return f"{REPOSITORY}/{image}:{digest(*read)}"


def chosen() -> tuple[Source, str]:
    """Which images labs run on, and why: the pulled ones where all are there or where no others can be made."""
    try:
        with daemon() as client:
            if all(size(client, reference(image, "registry")) is not None for image in USUAL):
                return "registry", "as all of them are there"
    except LabError:
        pass  # whoever needs the daemon says so
    if shutil.which("mmdebstrap"):
        return "packages", "as that needs no registry of images"
    return "registry", "as there is no mmdebstrap to make others with"


def size(client: Any, name: str) -> int | None:
    """Bytes of an image, unpacked; None where it is not."""
    try:
        return int(client.images.get(name).attrs["Size"])
    except ImageNotFound:
        return None


def present(name: str) -> bool:
    """Whether the daemon has the image of that name and tag."""
    with daemon() as client:
        return size(client, name) is not None


def sizes(source: Source) -> dict[str, tuple[str, int | None]]:
    """Name and tag, and bytes where it is there, of every image."""
    with daemon() as client:
        names = {image: reference(image, source) for image in RECIPES}
        return {image: (name, size(client, name)) for image, name in names.items()}


def build(image: str, source: Source, tell: Tell = _silent) -> str:
    """The image's name and tag; made when it is not there, once, whoever else asks for it meanwhile.

    Raises:
        LabError: no daemon, no registry, no room; the sentence ends with what the build said last.
    """
    name = reference(image, source)
    with daemon(timeout=PATIENCE) as client:
        if size(client, name) is None:
            with only_one(image):
                if size(client, name) is None:
                    if source == "packages":
                        arguments = {"BASE": base_image(client, tell)}
                    else:
                        arguments = {}
                        pull(client, image, _begins(image), tell)
                    _build(client, image, source, name, arguments, tell)
    return name


def own(name: str, release: str) -> str:
    """A user's image of Airflow as labs know it: named by what is in it, so what is built anew under a name is another.

    Args:
        release: of Airflow, that the labs are made for; another patch of it will do.

    Raises:
        UsageError: this machine has no such image, or it has no such Airflow.
    """
    with daemon() as client:
        try:
            found = client.images.get(name)
        except (ImageNotFound, APIError):
            raise UsageError(
                f"there is no image {name!r} on this machine: pull or build it, or leave out --airflow-image"
            ) from None
        repository, tag = f"{REPOSITORY}/airflow", f"{OWN}{found.id.rpartition(':')[2][:16]}"
        if size(client, f"{repository}:{tag}") is None:
            has, wanted = _release(client, name), release.rpartition(".")[0]
            if has.rpartition(".")[0] != wanted:
                raise UsageError(
                    f"the image {name!r} has {f'Airflow {has}' if has else 'no Airflow'}, and the labs are made for "
                    f"{wanted}: begin it with FROM {reference('airflow', chosen()[0])}"
                )
            found.tag(repository, tag=tag)
    return f"{repository}:{tag}"


def _release(client: Any, name: str) -> str:
    """The release of Airflow in an image; "" where there is none."""
    code = "import importlib.metadata as m; print(m.version('apache-airflow-core'))"
    container = client.containers.create(name, ["-c", code], entrypoint=["python"], network_mode="none")
    try:
        container.start()
        ended = container.wait()["StatusCode"]
        return "" if ended else str(container.logs(stderr=False).decode().strip())
    except APIError:  # it has no Python
        return ""
    finally:
        container.remove(force=True)


def build_missing(tell: Tell) -> None:
    """Make all images that labs run on, at once; those that are there stay as they are.

    Args:
        tell: never called twice at the same time.

    Raises:
        LabError: as `build`.
    """
    source, _ = chosen()
    found = sizes(source)
    missing = [image for image in USUAL if found[image][1] is None]
    telling = threading.Lock()

    def told(line: str) -> None:
        with telling:
            tell(line)

    with ThreadPoolExecutor(len(USUAL)) as pool:
        list(pool.map(lambda image: build(image, source, told), missing))


def _begins(image: str) -> str:
    """The official image that the recipe begins with."""
    begins = re.search(r"^FROM (\S+)", _recipe(image, "registry").read_text(), re.MULTILINE)
    assert begins
    return begins[1]


def pull(client: Any, image: str, name: str, tell: Tell = _silent) -> None:
    """Get what is not there from its registry.

    Args:
        image: what it is called in what is told.
        name: with its tag or digest.

    Raises:
        LabError: the registry is not reached, or has no such image.
    """
    if size(client, name) is not None:
        return
    tell(f"{image}: pulling {name}")
    layers: dict[str, str] = {}
    try:
        for event in client.api.pull(name, stream=True, decode=True):
            if "error" in event:
                raise APIError(event["error"])
            if event.get("id") and event.get("status") in ("Pulling fs layer", "Pull complete"):
                layers[event["id"]] = event["status"]
                done = sum(status == "Pull complete" for status in layers.values())
                tell(f"{image}: {done} of {len(layers)} layers")
    except APIError as error:
        raise LabError(
            f"the image {name} could not be pulled ({said(error)}); check that its registry is "
            "reachable, or install mmdebstrap, with which images are built from packages"
        ) from error


def only_one(what: str) -> filelock.BaseFileLock:
    """The lock of whoever builds it."""
    return filelock.FileLock(make_private(cache_root(), 0o755) / f"image-{what}.lock", timeout=1800)


def base_image(client: Any, tell: Tell) -> str:
    """The name of the Debian that every image begins with; made when it is not there."""
    name = base()
    with only_one("base"):
        if size(client, name) is None:
            archive = artefact("debian", name.rpartition(":")[2], lambda folder: _debian(folder, tell)) / "base.tar"
            repository, _, tag = name.partition(":")
            try:
                client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
            except APIError as error:
                raise LabError(
                    f"Docker did not take the Debian of the images ({said(error)}); make room where it "
                    "keeps its data, and run the command again"
                ) from error
    return name


def _debian(folder: Path, tell: Tell) -> None:
    if shutil.which("mmdebstrap") is None:
        raise LabError("there is no mmdebstrap, which makes the base of the images; install the package mmdebstrap")
    tell(f"base: Debian {SUITE}")
    command = ["mmdebstrap", "--quiet", *BASE, SUITE, str(folder / "base.tar")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise LabError(f"mmdebstrap could not make a Debian {SUITE}: {last_words(done.stderr.splitlines())}")


def _installer() -> str:
    """The lines of `requirements.lock` that pin uv, which installs the packages of an image."""
    found = re.search(r"^uv==.*?[^\\]\n", (PROJECT_ROOT / "requirements.lock").read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


def _build(client: Any, image: str, source: Source, name: str, arguments: dict[str, str], tell: Tell) -> None:
    tell(f"{image}: building")
    with tempfile.TemporaryDirectory(prefix="airflow-lab-") as folder:
        context = Path(folder)
        recipe = _recipe(image, source)
        for file in (recipe, *(IMAGES / file for file in RECIPES[image])):
            shutil.copy(file, context)
        if source == "packages" and image in PROGRAMS:
            shutil.copy(PROGRAMS[image].built(image, tell), context)
            forget_caches()
        (context / "uv.lock").write_text(_installer())
        (context / "certificates.pem").write_bytes(_trusted())
        if index := _index():
            arguments = {**arguments, "PIP_INDEX_URL": index}
        docker_build(client, folder, recipe.name, name, arguments, image)


def _index() -> str:
    """The index of Python packages that pip or uv use on this machine; "" where that is their own choice."""
    for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable]
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def docker_build(client: Any, folder: str, file: str, name: str, arguments: Mapping[str, str], image: str = "") -> None:
    """`docker build` of a folder, of which nothing stays but the image, whether it fails or not.

    Args:
        name: with its tag.
        image: what it is called in what is told; `name` where nothing is said.

    Raises:
        LabError: it fails; with its last words.
    """
    called = image or name
    recipe = Path(folder, file)
    labelled = re.sub(r"^FROM .*", rf"\g<0>\nLABEL {LAYER}={called}", recipe.read_text(), flags=re.MULTILINE)
    recipe.write_text(labelled)
    try:
        client.images.build(path=folder, dockerfile=file, tag=name, buildargs=dict(arguments), rm=True, forcerm=True)
    except BuildError as error:
        words = last_words(lines_of(error.build_log)) or error.msg
        raise LabError(
            f"the image {called} could not be built: {words}; check that the package registries are reachable and "
            "the disk is not full, and run the command again"
        ) from error
    except APIError as error:
        raise LabError(f"the image {called} could not be built: {said(error)}") from error
    finally:
        with suppress(requests.RequestException):  # the daemon may be gone
            _forget_layers(client, called)


def _forget_layers(client: Any, image: str) -> None:
    """Remove stages that were only built with, and the steps before one that failed."""
    for found in client.api.images(filters={"dangling": True, "label": f"{LAYER}={image}"}):
        with suppress(APIError):  # a container may use it
            client.api.remove_image(found["Id"])


def forget_unused(current: Collection[str]) -> list[str]:
    """Remove what interrupted builds have left, and the images that labs no longer run on.

    Args:
        current: names with tags of those that stay, of any age.

    Returns:
        The names of the others that nobody has made or used for long.
    """
    gone = []
    with daemon() as client:
        for image in RECIPES:
            with suppress(filelock.Timeout), only_one(image).acquire(timeout=0):
                _forget_layers(client, image)
        for found in client.images.list(f"{REPOSITORY}/*"):
            if time.time() - _made(found.attrs) > KEPT:
                for name in {tag for tag in found.tags if tag.startswith(REPOSITORY)} - set(current):
                    with suppress(APIError):  # a container uses it
                        client.api.remove_image(name)
                        gone.append(name)
    return gone


def _made(attributes: Mapping[str, Any]) -> float:
    """When an image was made, or named at last; its layers may be older."""
    latest = max(attributes["Created"], attributes.get("Metadata", {}).get("LastTagTime", ""))
    return datetime.fromisoformat(latest[:19]).replace(tzinfo=timezone.utc).timestamp()


def _trusted() -> bytes:
    """The certificates that this machine trusts: its network's registries may be behind a proxy with one of its own."""
    paths = ssl.get_default_verify_paths()
    file = Path(os.environ.get("PIP_CERT") or os.environ.get(paths.openssl_cafile_env) or paths.cafile or "")
    return file.read_bytes() if file.is_file() else b""


def lines_of(log: Any) -> list[str]:
    """The lines that a build has said."""
    return [line for entry in log for line in str(entry.get("stream") or entry.get("error") or "").splitlines()]
