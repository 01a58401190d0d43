"""The services of a lab on the process platform, as faults need them."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from components.platforms.process import closed_ports, users
from components.platforms.process.supervisor import Supervisor
from components.platforms.process.users import identity
from labs import processes
from labs.errors import LabError
from labs.runs import TaskInstance
from labs.waiting import until
from scenarios import cutting, filling
from scenarios.faulting import Incarnation, frozen_processes
from scenarios.machine import accepts, ancestors, lives, moving, resume, suspend, told


class ProcessServices:
    """Supervisord's programs and their processes.

    Args:
        home: the lab directory.
        services: of the lab's outputs.
    """

    def __init__(self, home: Path, services: Mapping[str, list[dict[str, Any]]]) -> None:
        self._home = home
        self._supervisor = Supervisor(home)
        self._endpoints = {
            replica["name"]: sorted(replica["endpoints"].values()) for group in services.values() for replica in group
        }

    def states(self) -> dict[str, str]:
        with self._supervisor.rpc() as rpc:
            known = {info["name"]: str(info["statename"]) for info in rpc.getAllProcessInfo()}
        return {name: known.get(name, "missing") for name in self._endpoints}

    def incarnation(self, service: str) -> Incarnation:
        pid = int(self._supervisor.info(service)["pid"])
        try:
            main = psutil.Process(pid) if pid else None
            members = [main, *main.children(recursive=True)] if main else []
        except psutil.NoSuchProcess:
            pid, members = 0, []
        own = {member.pid for member in members if member}
        others = [other for other in processes.marked(str(self._home), service) if other.pid not in own]
        return Incarnation(service, str(pid or ""), (*members, *others))

    def task(self, ti: TaskInstance) -> Incarnation:
        for process in processes.marked(str(self._home)):
            if process.pid == ti.pid:
                return Incarnation(ti.label, str(process.pid), (process, *process.children(recursive=True)))
        raise LabError(f"process {ti.pid} of {ti.label}, on {ti.hostname}, is none of this lab's processes")

    def process(self, service: str, number: int) -> psutil.Process:
        return psutil.Process(number)

    def run(
        self, service: str, command: Sequence[str], *, text: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        main = self.incarnation(service).parts[0]
        environment = {**main.environ(), **variables}
        for mark in (processes.LAB_MARK, processes.SERVICE_MARK):
            del environment[mark]
        way = self._way_to(service)
        return subprocess.run(
            [*way, *command],
            env=environment,
            cwd="/",
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **({} if way else identity(main.uids().real)),
        )

    def _way_to(self, service: str) -> list[str]:
        """What its script puts before a service's command: this makes whatever runs a part of that service."""
        way: list[str] = []
        words = shlex.split((self._home / "programs" / f"{service}.sh").read_text().splitlines()[-1])[1:]
        while words[1:3] in (["-m", closed_ports.__name__], ["-m", users.__name__]):
            length = words.index("--") + 1
            way, words = way + words[:length], words[length:]
        return way

    def kill(self, incarnation: Incarnation) -> None:
        incarnation.parts[0].kill()

    def stop(self, service: str) -> None:
        self._stop(service)

    def lose(self, service: str) -> None:
        # so that none sees the signal with which supervisord takes it out of service
        self._stop(service, suspend(service, lambda: self.incarnation(service).parts))

    def _stop(self, service: str, killed: Sequence[psutil.Process] = ()) -> None:
        with self._supervisor.rpc() as rpc:
            rpc.stopProcess(service, False)
            for process in killed:
                process.kill()

            # asking often keeps supervisord's loop, which otherwise turns once a second, going
            def stopped() -> tuple[bool | None, str]:
                state = str(rpc.getProcessInfo(service)["statename"])
                return (True if state == "STOPPED" else None), state

            until(stopped, what=f"{service} to stop", timeout=60, interval=0.05)

    def freeze(self, service: str) -> Incarnation:
        return frozen_processes(service, lambda: self.incarnation(service).parts)

    def thaw(self, service: str) -> None:
        resume(self.incarnation(service).parts)

    def awake(self, incarnation: Incarnation) -> list[str]:
        return moving(incarnation.parts)

    def start(self, service: str) -> None:
        def stopping() -> tuple[bool | None, str]:
            state = self.states()[service]
            return (None if state == "STOPPING" else True), state

        # supervisord does not start what it still stops, and may be about to start what has ended
        until(stopping, what=f"{service} to have stopped", timeout=60, interval=0.1)
        with self._supervisor.rpc() as rpc, contextlib.suppress(xmlrpc.client.Fault):
            rpc.startProcess(service, False)

    def remains(self, incarnation: Incarnation) -> list[str]:
        return [told(process) for process in incarnation.parts if lives(process)]

    def strays(self) -> list[str]:
        daemon = int((self._home / "supervisord.pid").read_text())
        return [
            told(process)
            for process in processes.marked(str(self._home))
            if process.pid != daemon and lives(process) and daemon not in ancestors(process)
        ]

    def host(self, service: str) -> str:
        return "127.0.0.1"

    def addresses(self, service: str) -> list[str]:
        return self._endpoints[service]

    def connection(self, service: str, port: int) -> AbstractContextManager[socket.socket]:
        return socket.create_connection((self.host(service), port), timeout=10)

    def sockets(self, service: str, port: int | str) -> list[str]:
        return [f"127.0.0.1:{port}"]

    def root(self, service: str) -> Path:
        return Path("/")

    def ended(self, service: str) -> int:
        log = (self._home / "service-logs" / "supervisord.log").read_text()
        return int(re.findall(rf"exited: {re.escape(service)} \(exit status (\d+)", log)[-1])

    def forget(self, service: str) -> list[str]:
        files = [file for file in (self._home / f"{service}-data").rglob("*") if file.is_file()]
        for file in files:
            file.unlink()
        return [file.name for file in files]

    def small_disk(self, folder: Path) -> AbstractContextManager[Callable[[], str]]:
        return filling.small_disk(folder)

    def cannot_cut_off(self) -> str:
        return cutting.missing()

    @contextlib.contextmanager
    def cut_off(self, service: str) -> Iterator[Callable[[], str]]:
        user = self.incarnation(service).parts[0].uids().real
        (address,) = self._endpoints["api-server"]
        host, _, port = address.rpartition(":")

        def proof() -> str:
            if cutting.connects(user, host, int(port)) or self.refused("api-server"):
                raise LabError(f"{service} is cut off, but its user {user} reaches {address}, or nobody does")
            return f"user {user} does not reach {address}, others do; {dropped()} packets dropped so far"

        with cutting.cut(user, int(port)) as dropped:
            yield proof

    def refused(self, service: str) -> list[str]:
        split = [address.rpartition(":") for address in self._endpoints[service]]
        return [f"{host}:{port}" for host, _, port in split if not accepts(host, int(port))]
