"""The recipes of the images, and how a build is asked for, against a daemon that records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from docker.errors import BuildError, ImageNotFound

from components.platforms.base import Image
from labs import daemon, images
from labs.cache import IMAGES
from labs.errors import LabError, UsageError


class Images:
    """The `images` of a daemon that has some already."""

    def __init__(self, there: set[str], error: BuildError | None = None) -> None:
        self.there, self.error = there, error
        self.built: dict[str, Any] = {}
        self.context: dict[str, str] = {}
        self.pruned: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        if name not in self.there:
            raise ImageNotFound(name)
        return type("Image", (), {"attrs": {"Size": 7}})

    def build(self, **given: Any) -> None:
        self.built = given
        self.context = {path.name: path.read_text() for path in Path(given["path"]).iterdir()}
        if self.error:
            raise self.error

    def prune(self, filters: dict[str, Any]) -> None:
        self.pruned = filters


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`there(*names, error=None)`: a daemon that has these images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(images, "cache_root", lambda: tmp_path)

    def there(*names: str, error: BuildError | None = None) -> Images:
        found = Images(set(names), error)

        @contextmanager
        def daemon(timeout: float = 0) -> Iterator[Any]:
            yield type("Client", (), {"images": found})

        monkeypatch.setattr(images, "daemon", daemon)
        return found

    return there


def test_every_image_of_a_platform_has_a_recipe_of_files_that_are_there() -> None:
    assert set(images.RECIPES) == set(Image.__args__)  # type: ignore[attr-defined]
    for files in images.RECIPES.values():
        assert all((IMAGES / file).is_file() for file in files)
        text = (IMAGES / files[0]).read_text()
        assert "ARG BASE" in text and text.rstrip().endswith("USER 50000:0")


def test_a_tag_follows_what_the_recipe_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = {name: images.reference(name) for name in images.RECIPES}
    assert before == {name: images.reference(name) for name in images.RECIPES}
    for file in {file for files in images.RECIPES.values() for file in files}:
        (tmp_path / file).write_bytes((IMAGES / file).read_bytes())
    (tmp_path / "airflow.lock").write_text("other==1\n")
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    after = {name: images.reference(name) for name in images.RECIPES}
    assert {name for name in before if before[name] != after[name]} == {"airflow"}
    monkeypatch.setattr(images, "SUITE", "trixie")
    assert not set(after.values()) & {images.reference(name) for name in images.RECIPES}


def test_an_image_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"there is no image 'postgre': did you mean postgres\?"):
        images.reference("postgre")


def test_an_image_that_is_there_is_not_built(there: Any) -> None:
    daemon = there(images.reference("redis"))
    assert images.build("redis") == images.reference("redis")
    assert not daemon.built


def test_a_build_gets_what_its_recipe_reads_and_leaves_no_stage(there: Any) -> None:
    daemon = there(images._base())
    images.build("airflow")
    assert daemon.built["tag"] == images.reference("airflow")
    assert daemon.built["buildargs"]["BASE"] == images._base()
    assert set(daemon.context) == {"airflow.dockerfile", "airflow.lock", "uv.lock", "certificates.pem"}
    assert daemon.context["uv.lock"].startswith("uv==") and "--hash=sha256:" in daemon.context["uv.lock"]
    assert daemon.pruned == {"dangling": True, "label": images.STAGE}
    assert f"LABEL {images.STAGE}=" in daemon.context["airflow.dockerfile"]


def test_a_build_that_fails_is_told_with_what_it_said_last(there: Any) -> None:
    log = [{"stream": "Step 1\n"}, {"error": "no space left on device"}]
    there(images._base(), error=BuildError("failed", iter(log)))
    with pytest.raises(LabError, match="the image redis could not be built: Step 1; no space left on device; check"):
        images.build("redis")


def test_a_base_without_its_maker_is_told(there: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there()
    monkeypatch.setattr(images, "artefact", lambda _name, _key, build: build(tmp_path))
    monkeypatch.setattr(images.shutil, "which", lambda _name: None)
    with pytest.raises(LabError, match="install the package mmdebstrap"):
        images.build("redis")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "add the user to the group docker"),
        (FileNotFoundError(2, "No such file or directory"), "no Docker daemon answers; install Docker and start it"),
        ("1.30", "speaks API 1.30; the labs need 1.41"),
    ],
)
def test_a_daemon_that_cannot_be_used_is_told(answer: Any, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def version(self) -> dict[str, str]:
            if isinstance(answer, OSError):
                raise daemon.DockerException(f"Error while fetching server API version: {answer}")
            return {"ApiVersion": answer}

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(daemon.docker, "from_env", lambda timeout: Client())
    with pytest.raises(LabError, match=sentence), daemon.daemon():
        pass
