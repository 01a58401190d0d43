"""How long labs live, and what is collected of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.platforms.docker import inspection
from labs import daemon, gc
from labs.errors import UsageError


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A checkout with the lab `here`, and the names of what is taken down."""
    down: list[str] = []

    class Lab:
        def __init__(self, name: str) -> None:
            self.name = name

        @classmethod
        def of(cls, name: str) -> Lab:
            return cls(name)

        def down(self, _watch: Any) -> None:
            down.append(self.name)

    (tmp_path / "here" / "engine").mkdir(parents=True)
    monkeypatch.setattr(gc, "engine_directory", lambda name: tmp_path / name / "engine")
    monkeypatch.setattr(gc, "labs_here", lambda: ["here"])
    monkeypatch.setattr(gc, "Lab", Lab)
    monkeypatch.setattr(gc, "_owners", lambda: {str(tmp_path / "here" / "run"), str(tmp_path / "gone" / "run")})
    monkeypatch.setattr(gc, "_remove", lambda home: [f"things of {home}"])
    monkeypatch.setattr(gc, "_images", list)
    yield down


def test_only_labs_whose_time_is_over_and_what_has_no_lab_go(labs: list[str], tmp_path: Path) -> None:
    gc.expire("here", 3600)
    assert gc.collect(lambda _event: None) == [f"things of {tmp_path / 'gone' / 'run'}"]
    gc.expire("here", -1)
    assert gc.collect(lambda _event: None)[0] == "lab here, whose time was over"
    assert labs == ["here"]


def test_what_may_not_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert gc._gone(str(tmp_path / "no" / "run")) and gc._gone(str(tmp_path / "file" / "lab" / "run"))
    assert not gc._gone(str(tmp_path / "run"))

    def refused(*_given: Any, **_more: Any) -> Any:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "stat", refused)
    assert not gc._gone(str(tmp_path / "no" / "run"))


def test_what_another_machines_daemon_has_is_nobodys_business(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, removed = str(tmp_path / "gone" / "run"), []
    thing = SimpleNamespace(name="network", attrs={"Labels": {daemon.OWNER: home}})
    client = SimpleNamespace(info=lambda: {"Name": where}, networks=SimpleNamespace(list=lambda **_: [thing]))
    client.containers = client.volumes = SimpleNamespace(list=lambda **_: [])
    monkeypatch.setattr(daemon, "daemon", lambda: nullcontext(client))
    monkeypatch.setattr(inspection, "remaining", lambda _home: ["network"])
    monkeypatch.setattr(inspection, "remove_all", removed.append)
    for where in ("another", platform.node()):
        here = where != "another"
        assert (home in gc._owners()) == here
        assert gc._remove(home) == ([f"network of {home}, which is gone"] if here else [])
    assert removed == [home]


def test_a_lab_without_a_time_lives_on(labs: list[str]) -> None:
    gc.expire("here", -1)
    gc.expire("here", None)
    assert not gc.expired("here")
    gc.collect(lambda _event: None)
    assert labs == []


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1800), ("2h", 7200), ("1d", 86400)])
def test_durations(text: str, seconds: int) -> None:
    assert gc.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "1.5h", "2 weeks"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="write a number and a unit, as 30m, 2h or 1d"):
        gc.seconds_of(text)
