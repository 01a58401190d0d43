"""A Docker daemon of a test's own, which may be killed and whose disk may be full: it shares nothing with others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labs.daemon import daemon
from labs.errors import LabError
from labs.paths import PROJECT_ROOT
from labs.waiting import until

NEEDED = ("dockerd", "ip", "iptables", "mount", "nsenter", "unshare")


class OwnDaemon:
    """`dockerd` in a network and with mounts of its own, so that its rules and bridges are no other daemon's.

    Its containers see no network but their own; what it publishes is reached from commands that run beside it.

    Args:
        folder: all that it keeps; its path must leave room for that of a socket.
        disk: size of the disk of its data, as `mount` takes it; "" for that of the machine.
    """

    def __init__(self, folder: Path, disk: str) -> None:
        self._folder = folder
        self.host = f"unix://{folder}/sock"
        data = folder / "data"
        data.mkdir()
        steps = ["ip link set lo up", *([f"mount -t tmpfs -o size={disk} tmpfs {data}"] if disk else [])]
        script = " && ".join([*steps, "echo made", "exec sleep infinity"])
        self._place = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert self._place.stdout and self._place.stdout.readline() == "made\n"
        self.start()

    def _beside(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self._place.pid}", "--net", "--mount", *command]

    def start(self) -> None:
        folder = self._folder
        places = [f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'pid'}"]
        log = folder / "log"
        with log.open("a") as output:
            self._daemon = subprocess.Popen(
                self._beside("dockerd", f"--host={self.host}", *places), stdout=output, stderr=output
            )

        def answers() -> tuple[bool | None, str]:
            assert self._daemon.poll() is None, log.read_text()[-2000:]
            try:
                with daemon():
                    return True, "it answers"
            except LabError as error:
                return None, str(error)

        until(answers, what="the test's own dockerd to answer", timeout=60, interval=0.2)

    def end(self, number: int = signal.SIGTERM) -> None:
        self._daemon.send_signal(number)
        self._daemon.wait(timeout=120)
        # its containerd dies with it, but counts as running until somebody has reaped it
        (self._folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def close(self) -> None:
        try:
            if self._daemon.poll() is not None:
                self.start()  # what was killed leaves its containers running
            self.end()
        finally:
            self._place.kill()
            self._place.communicate()

    def lab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line beside the daemon, to its end."""
        return subprocess.run(
            self._beside(str(PROJECT_ROOT / "lab"), *arguments),
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
            env={**os.environ, "DOCKER_HOST": self.host, "COLUMNS": "200"},
        )


@contextmanager
def own_daemon(patch: pytest.MonkeyPatch, disk: str = "") -> Iterator[OwnDaemon]:
    """One that `daemon` of this process leads to, too; gone afterwards with all it had."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        pytest.skip(f"NOT RUN: a Docker daemon of its own takes root, and {', '.join(lacking) or 'nothing else'}")
    folder = Path(tempfile.mkdtemp(prefix="lab-docker-"))
    patch.setenv("DOCKER_HOST", f"unix://{folder}/sock")
    own = None
    try:
        own = OwnDaemon(folder, disk)
        yield own
    finally:
        if own:
            own.close()
        shutil.rmtree(folder)
