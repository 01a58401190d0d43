"""How long labs live, and what is collected of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labs import gc
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
