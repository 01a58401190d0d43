"""`gc`: remove what of labs has no owner any more, and the labs that were asked for a limited time."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import psutil

from labs import processes
from labs.engines.base import Watcher
from labs.errors import LabError, UsageError
from labs.lab import Lab, labs_here
from labs.paths import cache_root, engine_directory

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> int:
    """The seconds of a duration.

    >>> seconds_of("90m")
    5400

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"\d+[smhd]", text):
        raise UsageError(f"--ttl {text}: write a number and a unit, as 30m, 2h or 1d")
    return int(text[:-1]) * UNITS[text[-1]]


def expire(name: str, ttl: int | None) -> None:
    """Note how long a lab may live from now on; None for as long as it likes."""
    note = engine_directory(name) / "expires"
    if ttl is None:
        note.unlink(missing_ok=True)
    else:
        note.write_text(str(time.time() + ttl))


def expired(name: str) -> bool:
    """Whether a lab has outlived its time."""
    try:
        return time.time() > float((engine_directory(name) / "expires").read_text())
    except (OSError, ValueError):
        return False


def collect(watch: Watcher) -> list[str]:
    """Take down the labs of this checkout whose time is over, and remove what belongs to no lab; says what it was."""
    found = []
    for name in filter(expired, labs_here()):
        Lab.of(name).down(watch)
        found.append(f"lab {name}, whose time was over")
    for home in sorted(_owners()):
        if _gone(home):
            found += _remove(home)
    if any(cache_root().glob("kind-*.json")):
        from components.clusters import kind

        found += kind.collect()
        found += _in_cluster()
    return found + _images()


def _in_cluster() -> list[str]:
    """Remove what labs that are gone left in the kind cluster that those of this checkout share."""
    from components.clusters.kind import Users, cluster_name
    from components.platforms.kubernetes import inspection

    for home in sorted(Users(cluster_name("", False)).known()):
        with contextlib.suppress(FileNotFoundError):  # that lab is not there yet
            return inspection.collect(Path(home, "kubeconfig").read_text())
    return []


def _images() -> list[str]:
    from labs import images, node_image

    current = {images.reference(image, source) for source in images.FOLDERS for image in images.RECIPES}
    with contextlib.suppress(LabError):  # no daemon, no images
        gone = images.forget_unused({*current, images.base(), node_image.reference()})
        return [f"image {name}, which labs no longer run on" for name in gone]
    return []


def _gone(home: str) -> bool:
    """Whether the lab of that directory is not there; where this user may not look, it is."""
    try:
        Path(home).parent.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _owners() -> set[str]:
    """The lab directories that processes, containers, networks and volumes of this machine name as their lab's."""
    from labs.daemon import OWNER, daemon, of_this_machine, owned  # the package docker takes a while to import

    homes = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            homes.add(process.environ().get(processes.LAB_MARK, ""))
    with contextlib.suppress(LabError), daemon() as client:  # no daemon, no containers
        if of_this_machine(client):
            homes |= {str((each.attrs.get("Config", each.attrs)["Labels"])[OWNER]) for each in owned(client)}
    return homes - {""}


def _remove(home: str) -> list[str]:
    from components.platforms.docker.inspection import remaining, remove_all
    from labs.daemon import daemon, of_this_machine

    removed = []
    with contextlib.suppress(LabError), daemon() as client:  # no daemon, no containers
        if of_this_machine(client):
            removed += remaining(home)
            remove_all(home)
    left = processes.marked(home)
    removed += [f"process {process.pid}" for process in left]
    processes.end_all(home)
    return [f"{each} of {home}, which is gone" for each in removed]
