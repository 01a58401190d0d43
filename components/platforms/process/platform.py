"""The process platform: services are supervisord programs on this machine, on loopback, in one lab directory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pulumi

from components.platforms.base import (
    Endpoint,
    Health,
    Image,
    JobSpec,
    Port,
    Service,
    ServiceSpec,
    Stop,
    Volume,
)
from components.platforms.process import postgres
from components.platforms.process.resources import (
    INSTALLED,
    Folder,
    Home,
    LoopbackPort,
    Packages,
    Program,
    installed,
)

LOOPBACK = "127.0.0.1"

IDENTITY = Path(__file__).parent / "identity"
"""Folder of the modules that tell Airflow which service it is part of, and where logs are."""

ENTRY_POINTS: dict[Image, str] = {"postgres": postgres.__name__}
"""Images whose command a module of this project starts, as the entry point of a container image would."""


class ProcessPlatform:
    """One lab's corner of this machine.

    Args:
        home: the lab directory.
    """

    name = "process"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._ports: dict[Port, LoopbackPort] = {}
        self._packages: dict[Image, Packages] = {}

    @cached_property
    def _lab(self) -> Home:
        return Home("home", str(self._home))  # not before something is asked for: a lab may be refused first

    def offers(self, image: Image) -> bool:
        """Servers from wheels are there, others when they are on the PATH; of Redis not every Python has a wheel."""
        return image not in INSTALLED or installed(image) is not None

    def endpoint(self, port: Port) -> Endpoint:
        """A port on loopback, chosen when the lab is made and kept while it lives."""
        if port not in self._ports:
            key = f"{port.service}-{port.name}"
            self._ports[port] = LoopbackPort(f"{key}-port", self._lab.home, key, port.wanted)
        number, host = self._ports[port].port, pulumi.Output.from_input(LOOPBACK)
        outside = pulumi.Output.concat(host, ":", number)
        return Endpoint(host=host, port=number, bind_host=host, bind_port=number, outside=outside)

    def volume(self, name: str, contents: Sequence[Path], opts: pulumi.ResourceOptions) -> Volume:
        """A folder of links, so that what a learner edits is what runs."""
        return Volume(self._folder(name, [str(path) for path in contents], {}, opts).path)

    def exchange(self, name: str, opts: pulumi.ResourceOptions) -> Volume:
        """A folder like all others: services are processes of this machine."""
        return self.volume(name, [], opts)

    def outside(self, volume: Volume) -> pulumi.Output[str]:
        """The same: services are processes of this machine."""
        return volume.path

    def file(
        self, name: str, text: pulumi.Input[str], opts: pulumi.ResourceOptions, *, writable: bool = False
    ) -> Volume:
        """A file of mode 0600, which its owner, who runs the services, may write to in any case."""
        folder = self._folder(Path(name).stem, [], {name: text}, opts)
        return Volume(pulumi.Output.concat(folder.path, "/", name))

    def service(self, name: str, spec: ServiceSpec, opts: pulumi.ResourceOptions) -> Service:
        """A supervisord program that is restarted when it ends."""
        program = self._program(name, spec, spec.health or Health(), spec.stop, opts)
        # not Output.all(**addresses), which makes a list of none
        addresses = pulumi.Output.from_input({port.name: self.endpoint(port).address for port in spec.ports})
        facts = pulumi.Output.all(program.log, addresses).apply(
            lambda seen: [{"name": name, "host": "local://", "endpoints": seen[1], "log": seen[0]}]
        )
        return Service(program, facts)

    def job(self, name: str, spec: JobSpec, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """A supervisord program that is not restarted."""
        return self._program(name, spec, Health(timeout=spec.timeout), Stop(), opts)

    def _folder(
        self, name: str, links: list[str], files: dict[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
    ) -> Folder:
        path = self._lab.home.apply(lambda home: f"{home}/{name}")
        return Folder(name, path, links, files, opts)

    def _program(
        self, name: str, spec: ServiceSpec | JobSpec, health: Health, stop: Stop, opts: pulumi.ResourceOptions
    ) -> Program:
        image = self._packages.get(spec.image)
        if image is None:
            image = self._packages[spec.image] = Packages(f"{spec.image}-packages", spec.image)
        environment: dict[str, Any] = dict(spec.environment)
        command: list[Any] = list(spec.command)
        if spec.image in ENTRY_POINTS:
            environment["POSTGRES_TEMPLATE"] = image.template
            command[0] = pulumi.Output.concat(image.bin, "/", command[0])
            command = [sys.executable, "-m", ENTRY_POINTS[spec.image], *command]
        belongings, closed = None, None
        if isinstance(spec, ServiceSpec) and spec.belongings is not None:
            belongings = [volume.path for volume in spec.belongings]
        if isinstance(spec, ServiceSpec) and spec.reaches is not None:
            closed = [known.port for port, known in self._ports.items() if port not in spec.reaches]
        if spec.image == "airflow":
            environment["PYTHONPATH"] = str(IDENTITY)
            environment["AIRFLOW__CORE__HOSTNAME_CALLABLE"] = "airflow_lab_identity.hostname"
            if spec.role == "api-server":
                environment.setdefault("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS", "airflow_lab_logging.LOGGING_CONFIG")
        props = {
            "home": self._lab.home,
            "name": name,
            "command": command,
            "environment": environment,
            "secrets": pulumi.Output.secret(dict(spec.secrets)),
            "path": image.bin,
            "health": dict(vars(health)),  # not asdict, which would copy outputs
            "stop": dict(vars(stop)),
            "job": isinstance(spec, JobSpec),
            "belongings": belongings,
            "closed": closed,
            "timeout": health.timeout,
        }
        return Program(name, props, opts)
