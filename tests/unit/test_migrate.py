"""What the migration job does of its own: nothing, statements that its image brings, or Airflow's migration."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs.cache import IMAGES

COMMENTED = "migrated by airflow-executor-labs abc"


class Server:
    """A database of so many tables, with a comment; remembers what it is asked to run."""

    def __init__(self, tables: int, comment: str | None) -> None:
        self.tables, self.comment, self.ran = tables, comment, list[str]()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        """Stays open, as a connection does."""

    def cursor(self) -> Server:
        return self

    def execute(self, statement: str, given: Sequence[Any] = ()) -> None:
        self.ran.append(statement)
        if statement.startswith("COMMENT ON"):
            (self.comment,) = given

    def fetchone(self) -> tuple[Any, ...]:
        if "pg_tables" in self.ran[-1]:
            return (self.tables,)
        return ("airflow", True) if "datdba" in self.ran[-1] else (self.comment,)


@pytest.mark.parametrize(
    ("tables", "comment", "option", "brought", "migrated", "laid_down"),
    [
        (0, None, "", True, False, True),
        (0, None, "", False, True, False),
        (62, None, "", True, True, False),
        (62, "migrated by another", "", True, True, False),
        (62, COMMENTED, "", True, False, False),
        (0, None, "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT", True, True, False),
    ],
)
def test_an_empty_database_takes_what_the_image_brings(
    tables: int,
    comment: str | None,
    option: str,
    brought: bool,
    migrated: bool,
    laid_down: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server, commands = Server(tables, comment), list[Sequence[str]]()
    driver = SimpleNamespace(connect=lambda _url: server, OperationalError=ConnectionError)
    monkeypatch.setitem(sys.modules, "psycopg2", driver)  # type: ignore[arg-type]
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    (tmp_path / "schema.sql").write_text("CREATE TABLE job ();")
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    settings = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://x", "AIRFLOW_LAB_FINGERPRINT": "abc"}
    settings |= {"AIRFLOW_LAB_SCHEMA": str(tmp_path / "schema.sql")} if brought else {}
    for name, value in {**settings, **({option: "1"} if option else {})}.items():
        monkeypatch.setenv(name, value)
    runpy.run_path(str(IMAGES / "migrate.py"), run_name="__main__")
    assert bool(commands) is migrated and ("CREATE TABLE job ();" in server.ran) is laid_down
    assert server.comment == COMMENTED
