"""The recipes of the images, and how a build is asked for, against a daemon that records."""

from __future__ import annotations

import json
import re
import shutil
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, BuildError, ImageNotFound

from components.airflow import version
from components.platforms.base import Image
from labs import daemon, images
from labs.cache import IMAGES
from labs.errors import LabError, UsageError


class Images:
    """The `images` of a daemon that has some already."""

    def __init__(self, there: set[str], error: BuildError | None, unreachable: str) -> None:
        self.there, self.error, self.unreachable = there, error, unreachable
        self.pulled: list[str] = []
        self.built: dict[str, Any] = {}
        self.context: dict[str, str] = {}
        self.left: list[str] = []
        self.ran: list[str] = []
        self.removed: list[str] = []
        self.release = ""

    def get(self, name: str) -> Any:
        if name not in self.there:
            raise ImageNotFound(name)

        def tag(repository: str, tag: str) -> None:
            self.there.add(f"{repository}:{tag}")

        return SimpleNamespace(attrs={"Size": 7}, id=f"sha256:{'0123456789abcdef' * 4}", tag=tag)

    def create(self, name: str, _command: list[str], **_how: Any) -> Any:
        self.ran.append(name)

        def start() -> None:
            if self.release == "no Python":
                raise APIError("executable file not found")

        return SimpleNamespace(
            start=start,
            wait=lambda: {"StatusCode": 0 if self.release else 1},
            logs=lambda stderr: f"{self.release}\n".encode(),
            remove=lambda force: self.removed.append(name),
        )

    def build(self, **given: Any) -> None:
        self.built = given
        self.context = {path.name: path.read_text() for path in Path(given["path"]).iterdir()}
        if self.error:
            raise self.error

    def pull(self, name: str, **_how: bool) -> Iterator[dict[str, str]]:
        if self.unreachable:
            raise APIError(self.unreachable)
        self.pulled.append(name)
        for status in ("Pulling fs layer", "Downloading", "Pull complete"):
            yield {"id": "a", "status": status}
        yield {"status": "Digest: sha256:0"}

    def images(self, filters: dict[str, Any]) -> list[dict[str, str]]:
        assert filters["dangling"] is True
        return [{"Id": f"stage of {filters['label']}"}, {"Id": "in use"}]

    def remove_image(self, id_: str) -> None:
        if id_ == "in use":
            raise APIError("conflict")
        self.left.append(id_)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`there(*names)`: a daemon that has these images, and may fail to build or to pull."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(images, "cache_root", lambda: tmp_path)

    def there(*names: str, error: BuildError | None = None, unreachable: str = "") -> Images:
        found = Images(set(names), error, unreachable)

        @contextmanager
        def daemon(timeout: float = 0) -> Iterator[Any]:
            yield type("Client", (), {"images": found, "api": found, "containers": found})

        monkeypatch.setattr(images, "daemon", daemon)
        return found

    return there


@pytest.mark.parametrize("source", images.FOLDERS)
def test_every_image_of_a_platform_has_a_recipe_of_files_that_are_there(source: images.Source) -> None:
    of_clusters = {"metrics-server", "keda", "keda-adapter"}
    assert set(images.RECIPES) - of_clusters == set(Image.__args__)  # type: ignore[attr-defined]
    for name, files in images.RECIPES.items():
        assert all((IMAGES / file).is_file() for file in files)
        text = images._recipe(name, source).read_text()
        begins = "ARG BASE\n" if source == "packages" else r"FROM \S+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?\n"
        assert re.search(begins, text) and text.rstrip().endswith("USER 50000:0")
        # labs on the official image of Airflow migrate their database by themselves
        read = [file for file in files if source == "packages" or file != "schema.sh"]
        assert all(f"COPY {file} " in text or f" {file} " in text for file in read)
        if name in images.PROGRAMS:
            assert (f"COPY {name} " in text) is (source == "packages")


def test_the_pulled_image_has_the_airflow_of_the_lock() -> None:
    assert f"apache/airflow:slim-{version()}-" in images._recipe("airflow", "registry").read_text()


def test_the_pulled_metrics_server_is_of_the_release_that_is_built() -> None:
    (version,) = re.findall(r"metrics-server (v\S+)", (IMAGES / "node" / "metrics-server" / "go.mod").read_text())
    assert images._begins("metrics-server").endswith(f"/mirrored-metrics-server:{version}")


def test_the_pulled_keda_is_of_the_release_that_is_built() -> None:
    (version,) = re.findall(r"github.com/kedacore/keda/v2 v(\S+)", (IMAGES / "node/keda/go.mod").read_text())
    assert images._begins("keda") == f"ghcr.io/kedacore/keda:{version}"
    assert images._begins("keda-adapter") == f"ghcr.io/kedacore/keda-metrics-apiserver:{version}"


def test_a_users_image_is_known_by_what_is_in_it(there: Any) -> None:
    daemon = there("mine:1")
    daemon.release = "3.3.9"
    named = "airflow-executor-labs/airflow:own-0123456789abcdef"
    assert images.own("mine:1", "3.3.2") == named and named in daemon.there
    assert images.own("mine:1", "3.3.2") == named and daemon.ran == ["mine:1"], "it is looked into once"


@pytest.mark.parametrize(
    ("name", "release", "sentence"),
    [
        ("other:1", "3.3.2", "there is no image 'other:1' on this machine: pull or build it"),
        (
            "mine:1",
            "3.2.1",
            r"'mine:1' has Airflow 3\.2\.1, and the labs are made for 3\.3: begin it with FROM airflow-ex",
        ),
        ("mine:1", "", "'mine:1' has no Airflow, and the labs are made for"),
        ("mine:1", "no Python", "'mine:1' has no Airflow, and the labs are made for"),
    ],
)
def test_a_users_image_is_there_and_has_this_airflow(there: Any, name: str, release: str, sentence: str) -> None:
    daemon = there("mine:1")
    daemon.release = release
    with pytest.raises(UsageError, match=sentence):
        images.own(name, "3.3.2")
    assert daemon.there == {"mine:1"} and daemon.removed == daemon.ran


def references(source: images.Source) -> dict[str, str]:
    return {name: images.reference(name, source) for name in images.RECIPES}


@pytest.mark.parametrize("source", images.FOLDERS)
def test_a_tag_follows_what_the_recipe_reads(
    source: images.Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = references(source)
    assert before == references(source)
    shutil.copytree(IMAGES, tmp_path / "images")
    (tmp_path / "images" / "airflow.lock").write_text("other==1\n")
    monkeypatch.setattr(images, "IMAGES", tmp_path / "images")
    after = references(source)
    assert {name for name in before if before[name] != after[name]} == {"airflow"}
    monkeypatch.setattr(images, "SUITE", "trixie")
    same = {name for name in after if after[name] == references(source)[name]}
    assert same == (set() if source == "packages" else set(after))


def test_an_image_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"there is no image 'postgre': did you mean postgres\?"):
        images.reference("postgre", "packages")


@pytest.mark.parametrize("source", images.FOLDERS)
def test_an_image_that_is_there_is_not_made(source: images.Source, there: Any) -> None:
    daemon = there(images.reference("redis", source))
    assert images.build("redis", source) == images.reference("redis", source)
    assert not daemon.built and not daemon.pulled


def test_what_a_recipe_begins_with_is_pulled_once(there: Any) -> None:
    said: list[str] = []
    daemon = there()
    images.build("redis", "registry", said.append)
    (name,) = daemon.pulled
    assert f"FROM {name}\n" in daemon.context["redis.dockerfile"]
    assert "BASE" not in daemon.built["buildargs"]
    assert said == [f"redis: pulling {name}", "redis: 0 of 1 layers", "redis: 1 of 1 layers", "redis: building"]
    again = there(name)
    images.build("redis", "registry")
    assert again.built and not again.pulled


def test_a_registry_that_does_not_answer_is_told(there: Any) -> None:
    there(unreachable="no such host")
    with pytest.raises(LabError, match=r"the image redis:\S+ could not be pulled \(no such host\); check that its reg"):
        images.build("redis", "registry")


@pytest.mark.parametrize(
    ("pulled", "mmdebstrap", "chosen"),
    [
        (True, True, ("registry", "as all of them are there")),
        (False, True, ("packages", "as that needs no registry of images")),
        (False, False, ("registry", "as there is no mmdebstrap to make others with")),
    ],
)
def test_the_source_is_the_one_that_there_is(
    pulled: bool, mmdebstrap: bool, chosen: tuple[str, str], there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(*(references("registry").values() if pulled else [images.reference("redis", "registry")]))
    monkeypatch.setattr(images.shutil, "which", lambda name: f"/usr/bin/{name}" if mmdebstrap else None)
    assert images.chosen() == chosen


def test_a_build_gets_what_its_recipe_reads_and_leaves_no_stage(there: Any) -> None:
    daemon = there(images.base())
    images.build("airflow", "packages")
    assert daemon.built["tag"] == images.reference("airflow", "packages")
    assert daemon.built["buildargs"]["BASE"] == images.base()
    read = {"airflow.dockerfile", "airflow.lock", "schema.sh", "uv.lock", "certificates.pem"}
    assert set(daemon.context) == read
    assert daemon.context["uv.lock"].startswith("uv==") and "--hash=sha256:" in daemon.context["uv.lock"]
    label = f"{images.LAYER}=airflow"
    assert daemon.left == [f"stage of {label}"]  # and of no image that another build is at
    stages = re.findall(r"^FROM .*\n(.*)$", daemon.context["airflow.dockerfile"], re.MULTILINE)
    assert stages == [f"LABEL {label}"] * 3


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", ""])
def test_a_build_uses_the_index_of_this_machine(
    variable: str, there: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for each in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(each, raising=False)
    if variable:
        monkeypatch.setenv(variable, "https://mirror.example/simple")
    else:
        (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://mirror.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    daemon = there(images.base())
    images.build("airflow", "packages")
    assert daemon.built["buildargs"]["PIP_INDEX_URL"] == "https://mirror.example/simple"


def test_what_is_missing_is_made_and_told(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "chosen", lambda: ("packages", "as the test says"))
    present = [images.reference(image, "packages") for image in images.RECIPES if image != "redis"]
    daemon = there(images.base(), *present)
    said: list[str] = []
    images.build_missing(said.append)
    assert daemon.built["tag"] == images.reference("redis", "packages")
    assert said == ["redis: building"]


def test_a_build_that_fails_is_told_with_what_it_said_last(there: Any) -> None:
    log = [{"stream": "Step 1\n"}, {"error": "no space left on device"}]
    there(images.base(), error=BuildError("failed", iter(log)))
    with pytest.raises(LabError, match="the image redis could not be built: Step 1; no space left on device; check"):
        images.build("redis", "packages")


def test_a_base_without_its_maker_is_told(there: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there()
    monkeypatch.setattr(images, "artefact", lambda _name, _key, build: build(tmp_path))
    monkeypatch.setattr(images.shutil, "which", lambda _name: None)
    with pytest.raises(LabError, match="install the package mmdebstrap"):
        images.build("redis", "packages")


def test_a_program_is_built_into_its_image_when_that_is_asked_for(
    there: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def built(_program: Any, name: str, _tell: Any) -> Path:
        (tmp_path / name).write_text("a program")
        return tmp_path / name

    monkeypatch.setattr(images.Program, "built", built)
    monkeypatch.setattr(images, "forget_caches", lambda: None)
    daemon = there(images.base())
    images.build("versitygw", "packages")
    assert daemon.context["versitygw"] == "a program"
    assert "versitygw" not in images.USUAL
    before = images.reference("versitygw", "packages"), images.reference("versitygw", "registry")
    monkeypatch.setattr(images, "PROGRAMS", {"versitygw": images.Program("versitygw", "another")})
    monkeypatch.setattr(images.Program, "key", "other")
    after = images.reference("versitygw", "packages"), images.reference("versitygw", "registry")
    assert before[0] != after[0] and before[1] == after[1]


def test_what_an_extra_alone_needs_does_not_choose_the_source(there: Any) -> None:
    there(*(images.reference(name, "registry") for name in images.USUAL))
    assert images.chosen()[0] == "registry"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "add the user to the group docker"),
        (
            FileNotFoundError(2, "No such file or directory"),
            r"no Docker daemon answers; install Docker \(on Debian doc",
        ),
    ],
)
def test_a_daemon_that_cannot_be_reached_is_told(
    error: OSError, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(timeout: float) -> None:
        raise daemon.DockerException(f"Error while fetching server API version: {error}")

    monkeypatch.setattr(daemon.docker, "from_env", refused)
    with pytest.raises(LabError, match=sentence), daemon.daemon():
        pass


@pytest.mark.parametrize(("version", "said"), [("1.30", "1.30"), ("1.20", "before 1.24")])
def test_a_daemon_that_is_too_old_is_told(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = json.dumps({"Version": "1", "ApiVersion": version}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def address_string(self) -> str:
            return "a Unix socket"

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with socketserver.UnixStreamServer(str(tmp_path / "sock"), Old) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'sock'}")
        with pytest.raises(LabError, match=rf"speaks API {said}; the labs need 1\.41"), daemon.daemon():
            pass
        server.shutdown()
