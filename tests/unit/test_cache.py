"""Artefacts are made once, kept while they are used, and no longer than that."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from labs import cache


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setattr(cache, "cache_root", lambda: tmp_path)
    return tmp_path


def make(name: str, key: str, days_ago: float = 0) -> Path:
    """An artefact that was last used so many days ago."""
    folder = cache.artefact(name, key, lambda folder: (folder / "content").write_text(key) and None)
    then = time.time() - days_ago * 86400
    os.utime(folder / ".complete", (then, then))
    return folder


def test_an_artefact_is_made_once() -> None:
    folder = make("env", "one")
    assert cache.artefact("env", "one", lambda _: pytest.fail("made again")) == folder


def test_a_half_made_artefact_is_made_again(root: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.artefact("env", "one", interrupted)
    (root / "env-one").mkdir()  # as a kill would leave it
    (root / "env-one" / "half").touch()
    assert [path.name for path in make("env", "one").iterdir() if path.name == "half"] == []


def test_what_nobody_used_for_long_goes_when_another_of_its_kind_is_made(root: Path) -> None:
    make("env", "old", days_ago=31)
    make("env", "recent", days_ago=29)
    make("other", "old", days_ago=31)
    make("env", "new")
    assert {path.name for path in root.iterdir() if path.is_dir()} == {
        "env-recent",
        "env-new",
        "other-old",
    }
    assert not (root / "env-old.lock").exists()


def test_use_keeps_an_artefact(root: Path) -> None:
    make("env", "old", days_ago=31)
    cache.artefact("env", "old", lambda _: pytest.fail("made again"))
    make("env", "new")
    assert (root / "env-old" / "content").read_text() == "old"
