"""What `doctor` says of Docker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs import doctor
from labs.errors import LabError


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`docker(images=…, free=…, root=…, source=…)`: a daemon that has some of the images, and its disk."""

    def docker(
        images: int = len(doctor.USUAL),
        free: float = 50,
        root: Path = tmp_path,
        source: str = "packages",
        uid: int = 0,
    ) -> None:
        client = SimpleNamespace(version=lambda: {"Version": "20.10"}, info=lambda: {"DockerRootDir": str(root)})

        @contextmanager
        def daemon() -> Iterator[Any]:
            yield client

        there = iter([7] * images + [None] * len(doctor.USUAL))
        monkeypatch.setattr(doctor, "daemon", daemon)
        monkeypatch.setattr(doctor, "chosen", lambda: (source, "as the test says"))
        monkeypatch.setattr(doctor, "size", lambda _client, _name: next(there))
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free * 2**30))
        monkeypatch.setattr(doctor.os, "geteuid", lambda: uid)

    return docker


def found() -> list[tuple[str, str, str, str]]:
    return [(each.what, each.verdict, each.found, each.advice) for each in doctor._docker()]


def test_no_daemon_is_advised_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def daemon() -> Iterator[Any]:
        raise LabError("install it")
        yield

    monkeypatch.setattr(doctor, "daemon", daemon)
    assert found() == [("docker platform", "missing", "no usable daemon", "install it")]


def test_a_daemon_with_everything_needs_no_advice(docker: Any) -> None:
    docker()
    said = "20.10; images from packages, as the test says: 5 of 5 are there"
    assert found() == [("docker platform", "ok", said, ""), ("free disk for Docker", "ok", "50.0 GiB", "")]


@pytest.mark.parametrize(("source", "verb"), [("packages", "build"), ("registry", "pull")])
def test_missing_images_are_advised_with_their_verb(docker: Any, source: str, verb: str) -> None:
    docker(images=2, source=source)
    assert found()[0][2:] == (
        f"20.10; images from {source}, as the test says: 2 of 5 are there",
        f"./lab images {verb}, or `up` does it",
    )


def test_who_is_not_root_is_told_what_cannot_be_verified(docker: Any) -> None:
    docker(uid=1000)
    assert found()[0][3] == "`verify` there as root, for it looks into containers"


@pytest.mark.parametrize(("images", "enough"), [(5, True), (4, False)])
def test_the_disk_of_docker_is_looked_at(docker: Any, tmp_path: Path, images: int, enough: bool) -> None:
    docker(images=images, free=3)
    advice = "" if enough else f"make room in {tmp_path}: 5 GiB"
    assert found()[1] == ("free disk for Docker", "ok" if enough else "missing", "3.0 GiB", advice)


def test_the_disk_of_a_daemon_elsewhere_is_not_looked_at(docker: Any) -> None:
    docker(root=Path("/nowhere/docker"))
    assert len(found()) == 1


def test_a_lab_that_runs_in_a_cluster_alone_needs_a_way_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def daemon() -> Iterator[Any]:
        raise LabError("install it")
        yield

    monkeypatch.setattr(doctor, "daemon", daemon)
    redis, kubernetes = doctor.Finding("redis", "ok", "7"), doctor._kubernetes()
    said = {each.what: (each.verdict, each.advice) for each in doctor._labs(redis, kubernetes)}
    assert said["lab kubernetes"] == ("missing", "install Docker, or use --cluster context:NAME")
    assert said["lab celery"][0] == said["lab local"][0] == "ok"


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (("node:1", "as the test says"), "kind with the node image node:1, as the test says"),
        (None, f"kind with the node image {doctor.node_image.OFFICIAL}, which is fetched at first"),
    ],
)
def test_the_node_image_of_kind_clusters_is_named(docker: Any, monkeypatch: Any, there: Any, found: str) -> None:
    docker()
    monkeypatch.setattr(doctor.node_image, "at_hand", lambda _client: there)
    assert (doctor._kubernetes().verdict, doctor._kubernetes().found) == ("ok", found)
