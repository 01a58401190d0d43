"""The services of a lab on the docker platform, as faults need them.

Where a fault has another way here, it is Docker's own: a process that is killed takes its container with it, which
Docker restarts; what stands still is paused, and a line is cut by taking the container off the network.
Source: https://docs.docker.com/engine/containers/start-containers-automatically/
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from docker.errors import APIError

from components.platforms.docker.platform import ENTRY
from labs import processes
from labs.daemon import OWNER, daemon
from labs.errors import LabError
from labs.runs import TaskInstance
from labs.service_logs import DOCKER
from scenarios import cutting
from scenarios.containers import members, namespace
from scenarios.faulting import Incarnation
from scenarios.machine import accepts, lives, told, wait_until_idle

GRACE = 30
"""Seconds after which Docker kills what was asked to stop."""


class DockerServices:
    """A lab's containers and their processes.

    Args:
        home: the lab directory.
        services: of the lab's outputs.
    """

    def __init__(self, home: Path, services: Mapping[str, list[dict[str, Any]]]) -> None:
        self._home = home
        replicas = [replica for group in services.values() for replica in group]
        self._containers = {replica["name"]: str(replica["host"]).removeprefix(DOCKER) for replica in replicas}
        self._endpoints = {replica["name"]: sorted(replica["endpoints"].values()) for replica in replicas}

    @contextlib.contextmanager
    def _container(self, service: str) -> Iterator[Any]:
        with daemon() as client:
            yield client.containers.get(self._containers[service])

    @contextlib.contextmanager
    def _ending(self, service: str, grace: int) -> Iterator[Any]:
        """A container that has ended after the block, also when that is interrupted.

        Docker then goes on to stop it, and says until the end that it runs: whoever asks would not start it again.
        """
        with self._container(service) as container:
            try:
                yield container
            except BaseException:
                container.stop(timeout=grace)  # answers when it has stopped, whoever asked first
                raise

    def _present(self) -> list[Any]:
        """The containers that there are, whatever their state."""
        with daemon() as client:
            wanted = {"label": f"{OWNER}={self._home}"}
            found = client.containers.list(all=True, filters=wanted, ignore_removed=True)
            return [each for each in found if each.name in self._containers.values()]

    def states(self) -> dict[str, str]:
        found = {each.name: str(each.status) for each in self._present()}
        return {name: found.get(each, "missing").upper() for name, each in self._containers.items()}

    def incarnation(self, service: str) -> Incarnation:
        with self._container(service) as container:
            init = int(container.attrs["State"]["Pid"])
        inside = members(init)
        main = inside.get(min((number for number in inside if number > 1), default=0))
        if main is None:
            return Incarnation(service, "", ())
        pids = {process.pid for process in inside.values()}
        others = [p for p in inside.values() if p.pid not in (main.pid, init) and _parent(p) in pids]  # no probes
        return Incarnation(service, str(main.pid), (main, *others, inside[1]))

    def process(self, service: str, number: int) -> psutil.Process:
        with self._container(service) as container:
            inside = members(int(container.attrs["State"]["Pid"]))
        if number not in inside:
            raise psutil.NoSuchProcess(number, msg=f"{service} has no such process")
        return inside[number]

    def task(self, ti: TaskInstance) -> Incarnation:
        try:
            process = self.process(ti.hostname, int(ti.pid or 0))
        except (KeyError, psutil.NoSuchProcess) as error:
            raise LabError(f"process {ti.pid} of {ti.label}, on {ti.hostname}, is none of this lab's") from error
        return Incarnation(ti.label, str(process.pid), (process, *process.children(recursive=True)))

    def run(
        self, service: str, command: Sequence[str], *, text: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        marks = ("-u", processes.LAB_MARK, "-u", processes.SERVICE_MARK)
        settings = [f"{key}={value}" for key, value in variables.items()]
        entry = ["/bin/sh", "-c", ENTRY, service, "env", *marks, *settings]
        return subprocess.run(
            ["docker", "exec", "--interactive", "--workdir", "/", self._containers[service], *entry, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def kill(self, incarnation: Incarnation) -> None:
        incarnation.parts[0].kill()

    def stop(self, service: str) -> None:
        with self._ending(service, GRACE) as container:
            container.stop(timeout=GRACE)

    def lose(self, service: str) -> None:
        with self._ending(service, 0) as container:
            container.kill()
            container.wait(timeout=60)

    def freeze(self, service: str) -> Incarnation:
        wait_until_idle(service, self.incarnation(service).parts[0])
        with self._container(service) as container:
            container.pause()
        found = self.incarnation(service)
        return replace(found, parts=tuple(filter(lives, found.parts)))

    def thaw(self, service: str) -> None:
        with self._container(service) as container:
            if container.status == "paused":
                container.unpause()

    def awake(self, incarnation: Incarnation) -> list[str]:
        with self._container(incarnation.name) as container:
            paused = container.status == "paused"
        return [told(process) for process in incarnation.parts if not paused or not lives(process)]

    def start(self, service: str) -> None:
        # Docker may be about to start it again itself
        with self._container(service) as container, contextlib.suppress(APIError):
            container.start()

    def remains(self, incarnation: Incarnation) -> list[str]:
        return [told(process) for process in incarnation.parts if lives(process)]

    def strays(self) -> list[str]:
        inits = [int(each.attrs["State"]["Pid"]) for each in self._present()]
        present = {namespace(init) for init in inits if init}
        return [
            told(process)
            for process in processes.marked(str(self._home))
            if lives(process) and namespace(process.pid) not in present
        ]

    def host(self, service: str) -> str:
        with self._container(service) as container:
            networks = container.attrs["NetworkSettings"]["Networks"].values()
        return next((str(each["IPAddress"]) for each in networks if each["IPAddress"]), "")

    def connection(self, service: str, port: int) -> AbstractContextManager[socket.socket]:
        return socket.create_connection((self.host(service), port), timeout=10)

    def sockets(self, service: str, port: int | str) -> list[str]:
        with self._container(service) as container:
            networks = container.attrs["NetworkSettings"]["Networks"].values()
        return [f"{each['IPAddress']}:{port}" for each in networks]

    def root(self, service: str) -> Path:
        return Path(f"/proc/{self.incarnation(service).id}/root")

    def ended(self, service: str) -> int:
        with self._container(service) as container, daemon() as client:
            wanted = {"event": "die", "container": container.id}
            events = client.events(since=0, until=int(time.time()) + 1, decode=True, filters=wanted)
            return int([event["Actor"]["Attributes"]["exitCode"] for event in events][-1])

    def addresses(self, service: str) -> list[str]:
        return self._endpoints[service]

    def refused(self, service: str) -> list[str]:
        return [address for address in self._endpoints[service] if not self._accepts(service, address)]

    def _accepts(self, service: str, address: str) -> bool:
        host, _, port = address.rpartition(":")
        if host == service:  # the name that only containers know
            host = self.host(service)
        return bool(host) and accepts(host, int(port))

    def forget(self, service: str) -> list[str]:
        with self._container(service) as container:
            volumes = [Path(each["Source"]) for each in container.attrs["Mounts"] if each["Type"] == "volume"]
        files = [file for volume in volumes for file in volume.rglob("*") if file.is_file()]
        for file in files:
            file.unlink()
        return [file.name for file in files]

    def small_disk(self, folder: Path) -> AbstractContextManager[Callable[[], str]]:
        raise LabError(f"{folder} cannot be put on a disk of its own: what this machine mounts now no container sees")

    def cannot_cut_off(self) -> str:
        return ""

    @contextlib.contextmanager
    def cut_off(self, service: str) -> Iterator[Callable[[], str]]:
        def proof() -> str:
            tried = self.run(service, ["python", "-c", cutting.CONNECT, str(api.hostname), str(api.port)])
            if tried.returncode == 0 or self.refused(str(api.hostname)):
                raise LabError(f"{service} is cut off, but reaches {api.netloc}, or nobody does")
            return f"{service} is on no network, others reach {api.netloc}; it gets {tried.stderr.strip()}"

        with daemon() as client:
            container = client.containers.get(self._containers[service])
            told = dict(each.split("=", 1) for each in container.attrs["Config"]["Env"])
            api = urlsplit(told["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"])
            networks = container.attrs["NetworkSettings"]["Networks"]
            try:
                for name in networks:
                    client.networks.get(name).disconnect(container)
                yield proof
            finally:
                container.reload()
                for name in networks.keys() - container.attrs["NetworkSettings"]["Networks"].keys():
                    aliases = [alias for alias in networks[name]["Aliases"] or () if alias != container.short_id]
                    client.networks.get(name).connect(container, aliases=aliases)


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return 0
