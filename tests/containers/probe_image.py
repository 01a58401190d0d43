"""An image of a few small programs of this machine, made in no time and without a registry."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labs.daemon import daemon

PROGRAMS = ("sh", "sleep", "chown", "cat", "test", "getent", "grep", "head")


def archive() -> bytes:
    """The programs with the libraries that they load."""
    paths = {Path(found) for name in PROGRAMS if (found := shutil.which(name))}
    for program in list(paths):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        paths |= {Path(found) for found in re.findall(r"(/\S+) \(0x", listed)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for path in paths:
            target = f"/bin/{path.name}" if path.name in PROGRAMS else str(path)
            file.add(path.resolve(), arcname=target)
    return stream.getvalue()


@contextmanager
def probe_image() -> Iterator[str]:
    """Its name, while it is there."""
    repository, tag = "airflow-executor-labs/probe", f"t{uuid.uuid4().hex[:8]}"
    with daemon() as client:
        client.api.import_image_from_data(archive(), repository=repository, tag=tag)
        try:
            yield f"{repository}:{tag}"
        finally:
            client.images.remove(f"{repository}:{tag}", force=True)
