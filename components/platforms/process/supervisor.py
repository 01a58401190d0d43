"""The lab's own supervisord: configuration text, life cycle, and remote calls over its unix socket.

Source: https://supervisord.org/configuration.html and https://supervisord.org/api.html
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from labs import processes
from labs.errors import LabError
from labs.processes import LAB_MARK
from labs.waiting import WaitTimeout, until

SOCKET_PATH_LIMIT = 90
"""Unix socket paths end at 107 bytes; supervisord appends its pid while it binds."""

LOG_BYTES, LOG_FILES = "10MB", 2


def last_lines(log: Path, count: int = 15, start: int = 0) -> str:
    """The last lines of a log file from byte `start` on, or "" where there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(start, log.stat().st_size - 65536))
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""


def _clean_environment() -> dict[str, str]:
    """The caller's environment without what would change the lab's Airflow behind its back."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}


@dataclass(frozen=True)
class Supervisor:
    """The supervisord of one lab; all its files are in `home`, its sockets in `sockets`."""

    home: Path

    @property
    def configuration(self) -> Path:
        return self.home / "supervisord.conf"

    @property
    def programs(self) -> Path:
        return self.home / "programs"

    @property
    def logs(self) -> Path:
        return self.home / "service-logs"

    @property
    def sockets(self) -> Path:
        """The folder for unix sockets: in the lab, or where that path is too long, a private one in /tmp."""
        inside = self.home / "sockets"
        if len(os.fsencode(inside)) + len("/supervisor.sock") <= SOCKET_PATH_LIMIT:
            return inside
        tag = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"airflow-lab-{os.getuid()}-{tag}"

    @property
    def socket(self) -> Path:
        return self.sockets / "supervisor.sock"

    @contextlib.contextmanager
    def rpc(self) -> Iterator[Any]:
        """The `supervisor` name space of the XML-RPC interface.

        Raises:
            OSError, http.client.HTTPException: supervisord does not answer.
        """
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        try:
            yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
        finally:
            transport.close()

    def alive(self) -> bool:
        """Whether this lab's supervisord answers."""
        try:
            with self.rpc() as rpc:
                return bool(rpc.getState()["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error):
            return False

    def start(self) -> None:
        """Write the configuration and start supervisord, in a session of its own, unless it answers already."""
        if self.alive():
            return
        for folder in (self.programs, self.logs, self.sockets):
            folder.mkdir(mode=0o711 if folder == self.sockets else 0o700, exist_ok=True)
        self.configuration.write_text(self._text())
        log = self.logs / "supervisord.out"
        with log.open("ab") as out:
            subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.configuration)],
                env=_clean_environment() | {LAB_MARK: str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.home,
                start_new_session=True,
                check=False,
            )
        until(
            lambda: (True, "answers") if self.alive() else (None, "no answer"),
            what=f"supervisord of {self.home} to answer",
            timeout=30,
            interval=0.05,
            detail=lambda: last_lines(log),
        )

    def stop(self) -> None:
        """Stop every program and end supervisord; a supervisord that does not answer is no error."""
        with contextlib.suppress(OSError, xmlrpc.client.Error, ValueError, psutil.NoSuchProcess):
            daemon = psutil.Process(int((self.home / "supervisord.pid").read_text()))
            with self.rpc() as rpc:
                for info in rpc.getAllProcessInfo():
                    self.remove(info["name"])
            # With no program left there is nothing that an orderly shutdown, some seconds long, would do.
            processes.end([daemon], grace=0.0)

    def _text(self) -> str:
        def quoted(path: Path) -> str:
            return str(path).replace("%", "%%")

        return f"""\
[supervisord]
logfile={quoted(self.logs / "supervisord.log")}
logfile_maxbytes={LOG_BYTES}
logfile_backups=1
pidfile={quoted(self.home / "supervisord.pid")}
childlogdir={quoted(self.logs)}
umask=077
{"user=root" if os.geteuid() == 0 else ""}

[unix_http_server]
file={quoted(self.socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[include]
files = {quoted(self.programs)}/*.conf
"""

    def add(self, name: str) -> None:
        """Take the program's configuration file into account; with autostart it starts at once."""
        with self.rpc() as rpc:
            rpc.reloadConfig()
            try:
                rpc.addProcessGroup(name)
            except xmlrpc.client.Fault as fault:
                if "ALREADY_ADDED" not in fault.faultString:
                    raise LabError(
                        f"supervisord refuses {name!r} ({fault.faultString}); see {self.programs}/{name}.conf"
                    ) from fault

    def remove(self, name: str) -> None:
        """Stop the program, by force if it takes too long, and forget it; one that is not there is no error."""
        with self.rpc() as rpc, contextlib.suppress(xmlrpc.client.Fault):
            with contextlib.suppress(xmlrpc.client.Fault):  # of one that does not run
                rpc.stopProcess(name, False)

            # Asking often also keeps supervisord's loop, which otherwise turns once a second, going.
            def stopped() -> tuple[bool | None, str]:
                state = str(rpc.getProcessInfo(name)["statename"])
                return (True if state in ("STOPPED", "EXITED", "FATAL") else None), state

            try:
                until(stopped, what=f"{name} to stop", timeout=processes.grace(90), interval=0.05)
            except WaitTimeout:
                processes.end(processes.marked(str(self.home), name), grace=0.0)
                until(stopped, what=f"{name} to stop", timeout=30, interval=0.05)
            rpc.removeProcessGroup(name)

    def info(self, name: str) -> dict[str, Any]:
        """State of a program as `getProcessInfo` gives it."""
        with self.rpc() as rpc:
            return dict(rpc.getProcessInfo(name))
