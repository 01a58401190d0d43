"""Logs of services reach files while they grow, and what keeps them from it is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from labs.service_logs import FileLog
from labs.waiting import until
from scenarios import shipping


class Broken(FileLog):
    """A log that can be read once."""

    reads = 0

    def read(self, since: float = 0) -> str:
        Broken.reads += 1
        if Broken.reads > 1:
            raise OSError("it is gone")
        return "once"


def test_what_is_said_from_now_on_is_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "EVERY", 0.01)
    source, target = tmp_path / "said", tmp_path / "scheduler.log"
    source.write_text("before\n")
    with shipping.shipped({"scheduler": FileLog(source)}, tmp_path):
        assert target.read_text() == ""
        with source.open("a") as file:
            file.write("after\n")
        until(lambda: (target.read_text() == "after\n" or None, target.read_text()), what="the line", timeout=10)


def test_what_keeps_a_log_from_being_shipped_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "EVERY", 0.01)
    (tmp_path / "said").touch()

    def failed() -> tuple[bool | None, str]:
        return (Broken.reads > 1 or None), f"{Broken.reads} reads at {time.time()}"

    with pytest.raises(OSError, match="it is gone"), shipping.shipped({"x": Broken(tmp_path / "said")}, tmp_path):
        until(failed, what="a second read", timeout=10)
