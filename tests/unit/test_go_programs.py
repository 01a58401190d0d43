"""What Go programs are pinned by, and how one is built, by a Go that pretends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labs import cache, go_programs, images, node_image
from labs.cache import IMAGES
from labs.errors import LabError
from labs.go_programs import Program, forget_caches

PROGRAMS = {**node_image.PROGRAMS, **images.PROGRAMS}


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Go on the PATH that writes each call down, makes what it is to build, and fails for the package `broken`."""
    monkeypatch.setattr(cache, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr(go_programs, "cache_root", lambda: tmp_path / "cache")
    script = tmp_path / "bin" / "go"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
echo "$@" >>{tmp_path}/calls
[ "$1" = env ] && echo go1.26.8
[ "$1" = build ] || exit 0
while [ $# -gt 1 ]; do [ "$1" = -o ] && made=$2; shift; done
[ "$1" = broken ] && echo "no such module" >&2 && exit 1
echo "$GOTOOLCHAIN $PWD" >"$made"
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return tmp_path / "calls"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_pinned(name: str) -> None:
    program = PROGRAMS[name]
    module = IMAGES / program.module
    assert (module / "go.sum").read_text()
    pinned = (module / "go.mod").read_text()
    if program.package == ".":
        assert (module / "main.go").is_file()
    else:
        assert re.search(rf"^(tool|)\s+{re.escape(program.package)}$", pinned, re.MULTILINE)
    (asked,) = re.findall(r"^go (\d+)\.(\d+)", pinned, re.MULTILINE)
    assert tuple(map(int, asked)) <= go_programs.LEAST_GO


def test_the_pulled_gateway_is_the_one_that_the_module_pins() -> None:
    pinned = re.search(r"github\.com/versity/versitygw (v\S+)", (IMAGES / "versitygw" / "go.mod").read_text())
    assert pinned and images._begins("versitygw") == f"versity/versitygw:{pinned[1]}"


def test_a_key_follows_what_a_program_is_built_from() -> None:
    keys = {
        program.key
        for program in (
            Program("versitygw", "a"),
            Program("versitygw", "a", ("-X b=c",)),
            Program("node/kind", "a"),
        )
    }
    assert len(keys) == 3


def test_a_program_is_built_once(go: Path) -> None:
    said: list[str] = []
    program = Program("versitygw", "github.com/a/b", ("-X c=d",))
    made = program.built("b", said.append)
    assert made.read_text() == f"local {IMAGES / 'versitygw'}\n"
    assert program.built("b", said.append) == made
    (call,) = [line for line in go.read_text().splitlines() if line.startswith("build")]
    assert call == f"build -trimpath -mod=readonly -ldflags -s -w -X c=d -o {made} github.com/a/b"
    assert said == ["b: building"]


def test_a_program_that_cannot_be_built_is_told(go: Path) -> None:
    with pytest.raises(LabError, match="b could not be built: no such module; check that the Go module registry is"):
        Program("versitygw", "broken").built("b")


def test_caches_are_forgotten_where_there_are_some(go: Path, tmp_path: Path) -> None:
    forget_caches()
    assert not go.exists()
    Program("versitygw", "github.com/a/b").built("b")
    assert (tmp_path / "cache" / "go").is_dir()
    forget_caches()
    assert not (tmp_path / "cache" / "go").exists()
    assert "clean -cache -modcache" in go.read_text()
