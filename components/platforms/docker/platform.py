"""The docker platform: services are containers on a network of the lab's own, of which only the API is published.

A service that may reach only some others has a network of its own, to which these are joined.

Every container runs as Airflow's own image does, as user 50000 of group 0, with a root file system that it cannot
write to and without any capability. Secrets come as a file that its shell reads, so that no `inspect` shows them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker

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
    digest,
)
from components.platforms.docker.resources import BuiltImage, HostFile, HostFolder, Joined, Ready
from components.platforms.process.resources import LoopbackPort
from labs import images
from labs.daemon import OWNER
from labs.processes import marks

LOOPBACK, ANYWHERE = "127.0.0.1", "0.0.0.0"

USER = "50000:0"

ROOT = "/lab"
"""Where containers see the lab's folders."""

SECRETS = "/run/lab/secrets"

ENTRY = f'. {SECRETS}; exec "$@"'
"""What the shell of a container does with its command."""

ENTRY_POINTS: Mapping[Image, tuple[str, ...]] = {"postgres": ("docker-entrypoint.sh",)}
"""Images that start their command through a program of theirs."""

MEMORY: Mapping[Image, int] = {"airflow": 3072}
"""MiB that a container may take at most; 512 where nothing is said."""

CPUS = 2
"""CPUs that a container may use at most; Docker refuses more than the machine has."""

HTTP_PROBE = """\
import json, sys, urllib.request
body = json.load(urllib.request.urlopen(sys.argv[1], timeout=5))
for path in sys.argv[2:]:
    value = body
    for part in path.split("."):
        value = value[part]
    if value != "healthy":
        sys.exit(f"{path} is {value}")
"""


def probe_command(health: Mapping[str, Any]) -> list[str]:
    """The command that ends with 0 in a healthy container; empty when none can see that from inside."""
    if health["http"]:
        return ["python", "-c", HTTP_PROBE, health["http"], *health["healthy"]]
    if health["tcp"]:
        host, _, port = health["tcp"].rpartition(":")
        return ["bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]
    return ["test", "-e", health["file"]] if health["file"] else []


MOVED = """\
now=$(grep ctxt_switches "/proc/$main/status") || exit 1
[ "$now" != "$(cat /tmp/.moved 2>/dev/null)" ] || { echo "process $main stands still"; exit 1; }
echo "$now" >/tmp/.moved
"""
"""Whether the process `$main` of a container has run since this was asked last.

A service of Airflow that waits for work wakes up every few seconds to look for it, so one that never does is stopped,
or waits for something that does not answer. A shell sees that by itself, and tells one replica from another.
Source: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
"""


MOVES = f"read -r main _ </proc/1/task/1/children\n{MOVED}"
"""`MOVED` of the main process, which init has started."""


def still_alive(health: Mapping[str, Any]) -> list[str]:
    """The command that ends with 0 in a container that works, long after it was ready."""
    return probe_command(health) if health["http"] or health["tcp"] else ["sh", "-c", MOVES]


HARDENED: Mapping[str, Any] = {
    "init": True,  # an orphan of a killed task has somebody to reap it
    "read_only": True,
    "tmpfs": {"/tmp": "size=512m,mode=1777"},  # noqa: S108 - of the container
    "capabilities": {"drops": ["ALL"]},
    "security_opts": ["no-new-privileges:true"],
    "cpus": str(min(CPUS, os.cpu_count() or 1)),
    "log_driver": "json-file",
    "log_opts": {"max-size": "10m", "max-file": "2"},
}
"""What every container is made with; a limit of processes is nothing that pulumi-docker can ask for."""

Mount = Mapping[str, Any]
"""Arguments of `docker.ContainerMountArgs`."""


def _bind(source: pulumi.Input[str], target: str, *, read_only: bool = True) -> Mount:
    return {"type": "bind", "source": source, "target": target, "read_only": read_only}


def _bounded(image: Image | None = None) -> dict[str, Any]:
    """What memory a container may take; with both the same there is no swap beside it."""
    most = MEMORY.get(image, 512) if image else 512
    return {"memory": most, "memory_swap": most}


def exports(settings: Mapping[str, str]) -> str:
    """Settings as a shell reads them.

    >>> exports({"PASSWORD": "it's"})
    "export PASSWORD='it'\"'\"'s'\\n"
    """
    return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(settings.items()))


def aliases(name: str, role: str) -> list[str]:
    """The names of a service on its network: its own, and that of its role, behind which are all replicas.

    Neither is ever meant for the other: several replicas are all numbered, the first one, too (`replica_names`), so
    that only a service which is the one of its role has that name itself.

    >>> aliases("scheduler-1", "scheduler"), aliases("scheduler", "scheduler")
    (['scheduler-1', 'scheduler'], ['scheduler'])
    """
    return list(dict.fromkeys([name, role]))


class DockerPlatform:
    """One lab's corner of a Docker daemon on this machine.

    Args:
        home: the lab directory; its parent's name is the lab's.
        airflow_image: name and tag of the user's image of Airflow; "": the labs' own.
    """

    name = "docker"

    def __init__(self, home: Path, airflow_image: str = "") -> None:
        self._home = home
        self._lab = home.parent.name
        self._prefix = f"airflow-lab-{self._lab}"
        # closed to other users of this machine: a mount needs no way to what is mounted
        self._directory = HostFolder("home", str(home), 0o700)
        self._network = docker.Network("network", name=self._prefix, labels=self._labels("network"))
        self._source, _ = images.chosen()
        self._users_images = {"airflow": airflow_image}
        self._images: dict[Image, BuiltImage] = {}
        self._published: dict[Port, LoopbackPort] = {}
        self._mounts: dict[str, list[Mount]] = {}
        self._outside: dict[str, pulumi.Output[str]] = {}
        self._services: dict[str, Ready] = {}

    def offers(self, image: Image) -> bool:
        """Every image has a recipe."""
        return True

    def endpoint(self, port: Port) -> Endpoint:
        """The service's name on the lab's network; what is public also has a port on this machine's loopback."""
        host, number = pulumi.Output.from_input(port.service), pulumi.Output.from_input(str(port.number))
        outside = pulumi.Output.concat(host, ":", number)
        if port.public:
            if port not in self._published:
                key = f"{port.service}-{port.name}"
                self._published[port] = LoopbackPort(f"{key}-port", self._directory.path, key, port.wanted)
            outside = pulumi.Output.concat(LOOPBACK, ":", self._published[port].port)
        return Endpoint(
            host=host, port=number, bind_host=pulumi.Output.from_input(ANYWHERE), bind_port=number, outside=outside
        )

    def volume(self, name: str, contents: Sequence[Path], opts: pulumi.ResourceOptions) -> Volume:
        """The project's own files as they are, so that what a learner edits is what runs; else a Docker volume."""
        target = f"{ROOT}/{name}"
        if contents:
            self._mounts[name] = [_bind(str(path), f"{target}/{path.name}") for path in contents]
        else:
            self._mounts[name] = [self._shared(name, opts)]
        if contents and all(path.is_dir() for path in contents):  # more may be put beside them while services run
            folder = self._folder(name, 0o755, [path.name for path in contents], opts)
            self._mounts[name].insert(0, _bind(folder.path, target))
        return Volume(pulumi.Output.from_input(target), name)

    def exchange(self, name: str, opts: pulumi.ResourceOptions) -> Volume:
        """A folder of the lab directory, mounted where it is."""
        path = self._folder(name, 0o755, [], opts).path
        self._mounts[name] = [_bind(path, str(self._home / name), read_only=False)]
        return Volume(path, name)

    def outside(self, volume: Volume) -> pulumi.Output[str]:
        """In the lab directory, or where Docker keeps its volumes, which is open to root alone."""
        return self._outside[volume.name]

    def file(
        self, name: str, text: pulumi.Input[str], opts: pulumi.ResourceOptions, *, writable: bool = False
    ) -> Volume:
        """A file of the lab directory; a service that asks for its folder may write there, but not to the file."""
        key = f"{Path(name).stem}/{name}"
        path = self._directory.path.apply(lambda home: f"{home}/{name}")
        file = HostFile(name, path, text, writable, opts)
        self._mounts[key] = [_bind(file.path, f"{ROOT}/{key}", read_only=not writable)]
        return Volume(pulumi.Output.from_input(f"{ROOT}/{key}"), key)

    def service(self, name: str, spec: ServiceSpec, opts: pulumi.ResourceOptions) -> Service:
        """A container that is restarted when it ends, and that its network knows by its name and its role's."""
        ready = self._services[name] = self._run(name, spec, spec.health or Health(), spec.stop, opts)
        addresses = pulumi.Output.from_input({port.name: self.endpoint(port).outside for port in spec.ports})
        container = f"{self._prefix}-{name}"
        facts = pulumi.Output.all(ready.container, addresses).apply(
            lambda seen: [{"name": name, "host": f"docker://{container}", "endpoints": seen[1], "log": container}]
        )
        return Service(ready, facts)

    def job(self, name: str, spec: JobSpec, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """A container that is not restarted."""
        return self._run(name, spec, Health(timeout=spec.timeout), Stop(), opts)

    def _run(
        self, name: str, spec: ServiceSpec | JobSpec, health: Health, stop: Stop, opts: pulumi.ResourceOptions
    ) -> Ready:
        job = isinstance(spec, JobSpec)
        parent = pulumi.ResourceOptions(parent=opts.parent)
        given: pulumi.Output[Any] = pulumi.Output.from_input(dict(spec.secrets))
        settings: pulumi.Output[str] = pulumi.Output.secret(given.apply(exports))
        path = self._directory.path.apply(lambda home: f"{home}/secrets-{name}")
        secrets = HostFile(f"{name}-secrets", path, settings, opts=parent)
        mounts = [
            _bind(secrets.path, SECRETS),
            *(mount for volume in spec.volumes for mount in self._mounted(volume.name, parent)),
        ]
        seen = pulumi.Output.from_input(dict(vars(health)))
        container = docker.Container(
            name,
            name=f"{self._prefix}-{name}",
            hostname=name,
            image=self._image(spec.image).reference,
            entrypoints=["/bin/sh", "-c", seen.apply(_entry), name, *ENTRY_POINTS.get(spec.image, ())],
            command=list(spec.command),
            envs=pulumi.Output.from_input({**marks(str(self._home), name), **spec.environment}).apply(
                lambda given: [f"{key}={value}" for key, value in sorted(given.items())]
            ),
            mounts=[docker.ContainerMountArgs(**mount) for mount in mounts],
            networks_advanced=[
                docker.ContainerNetworksAdvancedArgs(
                    name=self._network_of(name, spec, parent), aliases=aliases(name, spec.role)
                )
            ],
            ports=[
                docker.ContainerPortArgs(internal=port.number, external=self._number(port), ip=LOOPBACK)
                for port in (spec.ports if isinstance(spec, ServiceSpec) else ())
                if port.public
            ],
            healthcheck=None if job else seen.apply(_healthcheck),
            **_bounded(spec.image),
            must_run=not job,
            restart="no" if job else "unless-stopped",
            stop_signal=f"SIG{stop.signal}",
            destroy_grace_seconds=int(stop.grace),
            labels=self._labels(spec.role, {"secrets": settings.apply(digest)}),
            user=USER,
            **HARDENED,
            opts=opts,
        )
        props = {"name": name, "container": container.id, "health": seen, "test": seen.apply(probe_command), "job": job}
        return Ready(f"{name}-ready", props, parent)

    def _network_of(self, name: str, spec: ServiceSpec | JobSpec, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
        """The name of the network on which a service is."""
        if isinstance(spec, JobSpec) or spec.reaches is None:
            return self._network.name
        own = docker.Network(
            f"{name}-network", name=f"{self._prefix}-{name}", labels=self._labels("network"), opts=opts
        )
        joined = [
            Joined(f"{name}-{port.service}", own.name, self._services[port.service].container, port.service, opts)
            for port in spec.reaches
        ]
        return pulumi.Output.all(own.name, *(each.network for each in joined)).apply(lambda seen: str(seen[0]))

    def _folder(self, name: str, mode: int, folders: Sequence[str], opts: pulumi.ResourceOptions) -> HostFolder:
        path = self._directory.path.apply(lambda home: f"{home}/{name}")
        folder = HostFolder(f"{name}-folder", path, mode, folders, opts)
        self._outside[name] = folder.path
        return folder

    def _image(self, image: Image) -> BuiltImage:
        if image not in self._images:
            self._images[image] = BuiltImage(f"{image}-image", image, self._source, self._users_images.get(image, ""))
        return self._images[image]

    def _number(self, port: Port) -> pulumi.Output[int]:
        return self.endpoint(port).outside.apply(lambda address: int(address.rpartition(":")[2]))

    def _labels(self, role: str, more: Mapping[str, pulumi.Input[str]] | None = None) -> Any:
        labels = {OWNER: str(self._home), "release": self._lab, "tier": "airflow", "component": role, **(more or {})}
        return [{"label": key, "value": value} for key, value in labels.items()]

    def _mounted(self, name: str, opts: pulumi.ResourceOptions) -> list[Mount]:
        """What a service sees of a volume; for the folder of a file, that folder and all files in it."""
        if name not in self._mounts:
            self._mounts[name] = [self._shared(name, opts)]
        keys = [key for key in self._mounts if key == name or key.startswith(f"{name}/")]
        return [mount for key in keys for mount in self._mounts[key]]

    def _shared(self, name: str, opts: pulumi.ResourceOptions) -> Mount:
        """A Docker volume that belongs to the user of all services, as Docker itself gives it to root."""
        volume = docker.Volume(name, name=f"{self._prefix}-{name}", labels=self._labels("volume"), opts=opts)
        self._outside[name] = volume.mountpoint
        target = f"{ROOT}/{name}"
        owner = docker.Container(
            f"{name}-owner",
            name=f"{self._prefix}-{name}-owner",
            image=self._image("airflow").reference,
            entrypoints=["chown"],
            command=[USER, target],
            user="0:0",
            network_mode="none",
            **_bounded(),
            mounts=[docker.ContainerMountArgs(type="volume", source=volume.name, target=target)],
            must_run=False,
            restart="no",
            labels=self._labels("volume"),
            **{**HARDENED, "capabilities": {"drops": ["ALL"], "adds": ["CHOWN"]}},
            opts=opts,
        )
        props = {"name": name, "container": owner.id, "health": {"timeout": 60.0}, "test": [], "job": True}
        done = Ready(f"{name}-owned", props, opts)
        source = pulumi.Output.all(volume.name, done.container).apply(lambda seen: str(seen[0]))
        return {"type": "volume", "source": source, "target": target, "read_only": False}


def _entry(health: Mapping[str, Any]) -> str:
    """`ENTRY`, without what an earlier run has left of the file that says that a service is ready."""
    return f"rm -f {shlex.quote(health['file'])}; {ENTRY}" if health["file"] else ENTRY


def _healthcheck(health: Mapping[str, Any]) -> Any:
    """Docker's own probe, for `lab status` and `docker ps`; `up` does not wait for its slow turn."""
    return {"tests": ["CMD", *still_alive(health)], "interval": "30s", "timeout": "10s", "retries": 3}
