"""Programs built from Go modules, each once: they are kept in the cache.

What pins a program is a Go module of this project, a folder of `images/` with go.mod and go.sum. Go itself is that of
the PATH, else a wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import filelock

from labs.cache import IMAGES, Tell, artefact, digest, environment
from labs.errors import LabError, last_words
from labs.paths import cache_root, make_private

LEAST_GO = (1, 26)
"""Go that the modules ask for."""


@dataclass(frozen=True)
class Program:
    """A program, and what it is built from.

    Attributes:
        module: folder of `images/` with the Go module that pins it.
        package: what is built.
        flags: more of them for the linker.
    """

    module: str
    package: str
    flags: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A content hash over all that it is built from."""
        files = sorted((IMAGES / self.module).iterdir())
        return digest(*(path.read_bytes() for path in files), self._flags)

    @property
    def _flags(self) -> str:
        return " ".join(("-s", "-w", *self.flags))

    def built(self, name: str, tell: Tell = lambda _: None) -> Path:
        """The program's file, which has that name; built when it is not in the cache.

        Raises:
            LabError: there is no Go, the module registry is not reached, or there is no room.
        """

        def build(folder: Path) -> None:
            tell(f"{name}: building")
            command = [_go(), "build", "-trimpath", "-mod=readonly", "-ldflags", self._flags, "-o", str(folder / name)]
            with _alone():
                done = subprocess.run(
                    [*command, self.package],
                    cwd=IMAGES / self.module,
                    env=_environment(),
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if done.returncode:
                raise LabError(
                    f"{name} could not be built: {last_words(done.stderr.splitlines())}; check that the Go module "
                    "registry is reachable and the disk is not full, and run the command again: what is built stays"
                )

        return artefact(f"program-{name}", self.key, build) / name


def forget_caches() -> None:
    """Remove Go's own caches, which are large; waits for who builds with them."""
    with _alone():
        if _caches().exists():
            # Go keeps its modules read-only
            clean = [_go(), "clean", "-cache", "-modcache"]
            subprocess.run(clean, env=_environment(), capture_output=True, check=False, cwd="/")
            shutil.rmtree(_caches(), ignore_errors=True)


def _alone() -> filelock.BaseFileLock:
    return filelock.FileLock(make_private(cache_root(), 0o755) / "go.lock", timeout=1800)


def _go() -> str:
    """Go from the PATH, or the wheel that `images/go.lock` pins."""
    for path in filter(None, [shutil.which("go")]):
        said = subprocess.run([path, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/").stdout
        seen = re.match(r"go(\d+)\.(\d+)", said)
        if seen and tuple(map(int, seen.groups())) >= LEAST_GO:
            return path
    return str(environment("go") / "bin" / "go")


def _environment() -> dict[str, str]:
    caches = make_private(_caches(), 0o755)
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "GOMODCACHE": str(caches / "mod"),
        "GOCACHE": str(caches / "build"),
    }


def _caches() -> Path:
    return cache_root() / "go"
