"""A daemon that is restarted under a lab, one whose disk is full, and one whose images are old."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labs import images
from labs.daemon import daemon
from labs.errors import LabError
from labs.paths import lab_directory
from tests.containers.own_daemon import OwnDaemon, own_daemon
from tests.containers.probe_image import probe_image

NAME = "t-own-daemon"


@pytest.fixture(scope="module")
def with_images() -> Iterator[OwnDaemon]:
    """A daemon that has the images of the lab `local` from the one of this machine."""
    made = subprocess.run([images.PROJECT_ROOT / "lab", "images", "build"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    source, _ = images.chosen()
    names = [images.reference(image, source) for image in images.RECIPES]
    with (
        subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as saving,
        pytest.MonkeyPatch.context() as patch,
        own_daemon(patch) as own,
    ):
        subprocess.run(["docker", "load", "--quiet"], stdin=saving.stdout, check=True, stdout=subprocess.DEVNULL)
        assert saving.wait() == 0
        yield own


def volumes() -> dict[str, str]:
    """When each of all volumes was made."""
    with daemon() as client:
        return {each.name: each.attrs["CreatedAt"] for each in client.volumes.list()}


def everything() -> set[str]:
    """All that a daemon has but its images, and but the networks that it always has."""
    with daemon() as client:
        found = [*client.containers.list(all=True), *client.networks.list(), *client.volumes.list()]
        return {each.name for each in found} - {"bridge", "host", "none"}


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_lab_outlives_a_restart_of_its_daemon(with_images: OwnDaemon, number: signal.Signals) -> None:
    def lab(*arguments: str) -> str:
        done = with_images.lab(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    up = ("up", "local", "--platform", "docker", "--engine", "embedded", "--name", NAME)
    try:
        lab(*up)
        lab("verify", NAME, "-k", "35_01_02")
        before = volumes()
        assert before
        with_images.end(number)
        assert "no Docker daemon answers" in with_images.lab(*up).stderr
        with_images.start()
        lab(*up)
        lab("verify", NAME, "-k", "35_01_02")
        assert volumes() == before
    finally:
        if lab_directory(NAME).exists():
            lab("down", NAME)
    assert everything() == set()
    assert not lab_directory(NAME).exists()


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """`build(image, recipe)`: build that recipe, with the image for a name."""

    def build(image: str, recipe: str) -> str:
        folder = tmp_path / image
        folder.mkdir()
        (folder / "recipe").write_text(recipe)
        name = f"{images.REPOSITORY}/{image}:t"
        with daemon() as client:
            images.docker_build(client, str(folder), "recipe", name, {}, image)
        return name

    return build


def layers() -> list[dict[str, Any]]:
    """All that the daemon has of images, with and without names."""
    with daemon() as client:
        return list(client.api.images(all=True))


def test_a_build_on_a_full_disk_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, build: Any) -> None:
    with own_daemon(monkeypatch, disk="64m") as own, probe_image() as probe:
        before = layers()
        with pytest.raises(LabError, match=r"the image full could not be built: .*; check .* the disk is not full"):
            build("full", f"FROM {probe} AS first\nRUN echo x >/x\nFROM {probe}\nRUN head -c 80M /dev/zero >/x\n")
        assert layers() == before
        assert everything() == set()
        done = own.lab("images", "build", "redis")  # whose Debian alone is larger
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and "no space left on device" in done.stderr
        assert layers() == before
        assert "make room in" in own.lab("doctor").stdout


def test_images_that_are_old_and_unused_are_collected(monkeypatch: pytest.MonkeyPatch, build: Any) -> None:
    with own_daemon(monkeypatch), probe_image() as probe, daemon() as client:
        old, used, current = (build(image, f"FROM {probe}\nRUN echo {image} >/x\n") for image in ("old", "used", "now"))
        client.images.get(old).tag("somebody/else", "t")
        container = client.containers.create(used, "sh")
        assert images.forget_unused({current}) == []
        monkeypatch.setattr(images, "KEPT", -60)
        assert images.forget_unused({current, probe}) == [old]
        container.remove()
        assert {tag for image in client.images.list() for tag in image.tags} == {
            used,
            current,
            probe,
            "somebody/else:t",
        }
