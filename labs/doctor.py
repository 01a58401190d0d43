"""What this machine can run, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from labs import node_image
from labs.daemon import daemon
from labs.errors import LabError
from labs.images import USUAL, chosen, reference, size
from labs.paths import PORTS, cache_root, make_private, state_root
from stacks.catalogue import LABS

MEMORY_OF_A_LAB = 2.0
"""GiB that a lab with its tasks takes; see the README's figures."""

PORTS_OF_A_LAB = 6

DISK_OF_A_LAB = 2.0
"""GiB for the environments in the cache and a lab's data."""

DISK_OF_IMAGES = 3.0
"""GiB that all images take, with what is there only while they are built."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        verdict: `missing` is something optional; `broken` stops every lab.
        advice: what to do; "" where nothing is to be done.
    """

    what: str
    verdict: Literal["ok", "missing", "broken"]
    found: str
    advice: str = ""


def _size(what: str, gib: float, least: float, advice: str) -> Finding:
    return Finding(what, "ok" if gib >= least else "broken", f"{gib:.1f} GiB", "" if gib >= least else advice)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _machine() -> Iterable[Finding]:
    yield Finding(
        "machine",
        "ok",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    )
    available = psutil.virtual_memory().available / 2**30
    yield _size(
        "free memory",
        available,
        MEMORY_OF_A_LAB,
        f"a lab takes up to {MEMORY_OF_A_LAB:.0f} GiB: end something",
    )
    for what, folder in (("cache", cache_root()), ("labs", state_root())):
        free = shutil.disk_usage(_existing(folder)).free / 2**30
        yield _size(f"free disk for {what}", free, DISK_OF_A_LAB, f"make room in {folder}")
    try:
        yield Finding("cache", "ok", str(make_private(cache_root(), 0o755)))
    except LabError as error:
        yield Finding("cache", "broken", "not writable", str(error))


def _version(command: list[str]) -> str | None:
    """First line that the command prints, None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.strip().splitlines()), "")


def _tools() -> Iterable[Finding]:
    yield Finding("embedded engine", "ok", "in this project")
    cli = _version(["pulumi", "version"])
    yield (
        Finding("pulumi engine", "ok", cli)
        if cli
        else Finding(
            "pulumi engine",
            "missing",
            "no Pulumi CLI on the PATH",
            "only for `--engine pulumi` and `pulumi up`",
        )
    )
    yield Finding("process platform", "ok", "supervisord, servers from wheels")
    yield from _docker()


def _docker() -> Iterable[Finding]:
    what = "docker platform"
    try:
        with daemon() as client:
            version = str(client.version()["Version"])
            used, why = chosen()
            there = [size(client, reference(image, used)) is not None for image in USUAL]
            root = Path(client.info()["DockerRootDir"])
    except LabError as error:
        yield Finding(what, "missing", "no usable daemon", str(error))
        return
    found = f"{version}; images from {used}, {why}: {sum(there)} of {len(there)} are there"
    advice = [] if all(there) else [f"./lab images {'pull' if used == 'registry' else 'build'}, or `up` does it"]
    advice += [] if os.geteuid() == 0 else ["`verify` there as root, for it looks into containers"]
    yield Finding(what, "ok", found, "; ".join(advice))
    if root.is_dir():  # it is not for a daemon of another machine
        free, least = shutil.disk_usage(root).free / 2**30, DISK_OF_A_LAB + (0 if all(there) else DISK_OF_IMAGES)
        enough = free >= least
        advice = [] if enough else [f"make room in {root}: {least:.0f} GiB"]
        yield Finding("free disk for Docker", "ok" if enough else "missing", f"{free:.1f} GiB", "".join(advice))


def _kubernetes() -> Finding:
    what = "kubernetes platform"
    try:
        with daemon() as client:
            image = node_image.at_hand(client)
    except LabError:
        return Finding(what, "missing", "no Docker for a kind cluster", "install Docker, or use --cluster context:NAME")
    if image:
        return Finding(what, "ok", f"kind with the node image {image[0]}, {image[1]}")
    advice = "where no registry of images is reached: ./lab images build node, which takes minutes"
    return Finding(what, "ok", f"kind with the node image {node_image.OFFICIAL}, which is fetched at first", advice)


def _redis() -> Finding:
    installed = _version(["redis-server", "--version"])
    if installed or sys.version_info < (3, 13):
        return Finding("redis", "ok", installed or "from a wheel")
    return Finding("redis", "missing", "no redis-server on the PATH", "for labs with Celery: install redis-server")


def _optional() -> Iterable[Finding]:
    for program, part in (("haproxy", "one address for its API servers"), ("pgbouncer", "a pool before its database")):
        there = shutil.which(program)
        yield Finding(
            program,
            "ok" if there else "missing",
            there or "not on the PATH",
            "" if there else f"gives the lab ha {part}",
        )


def _ports() -> Finding:
    taken = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr}
    free = sum(port not in taken for port in PORTS)
    verdict: Literal["ok", "broken"] = "ok" if free >= PORTS_OF_A_LAB else "broken"
    advice = "" if free >= PORTS_OF_A_LAB else "end what listens there"
    return Finding("ports", verdict, f"{free} of {PORTS.start} to {PORTS.stop - 1} are free", advice)


def _labs(redis: Finding, kubernetes: Finding) -> Iterable[Finding]:
    for lab in LABS.values():
        what = f"lab {lab.name}"
        needed = [redis] if lab.workers else [kubernetes] if lab.platforms == ("kubernetes",) else []
        lacking = next((each for each in needed if each.verdict != "ok"), None)
        if lacking:
            yield Finding(what, lacking.verdict, lacking.found, lacking.advice)
        else:
            yield Finding(what, "ok", f"runs on {', '.join(lab.platforms)}", f"./lab up {lab.name} --verify")


def examine() -> list[Finding]:
    """Look at everything; changes nothing but makes the cache folder."""
    redis, kubernetes = _redis(), _kubernetes()
    return [*_machine(), _ports(), *_tools(), kubernetes, redis, *_optional(), *_labs(redis, kubernetes)]
