"""A small disk of its own for one folder of this machine, which can be filled without harm to anything else.

Source: https://man7.org/linux/man-pages/man5/tmpfs.5.html
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labs.errors import LabError

SIZE = "256k"


def missing() -> str:
    """What this machine lacks for mounting a disk, as a sentence; "" for nothing."""
    return "" if os.geteuid() == 0 else "needs root: nobody else may mount a disk"


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], str]]:
    """A disk of `SIZE` in the place of the folder while the block runs; gives what fills it, and says so with proof.

    Raises:
        LabError: it cannot be mounted, or something could be written to the full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(folder))

    def fill() -> str:
        with contextlib.suppress(OSError), (folder / "ballast").open("ab", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        try:
            (folder / "one-more").write_bytes(bytes(4096))
        except OSError as error:
            return f"writing below {folder.name}: {error.strerror}"
        raise LabError(f"the disk below {folder} is not full")

    try:
        yield fill
    finally:
        _run("umount", "--lazy", str(folder))  # a log that is still open must not keep it


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{command[0]} of a small disk failed ({done.stderr.strip()}); see what `mount` lists")
