"""What a component may ask of the place where its services run. No component knows more than this file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pulumi

from components.autoscaling import Autoscaling

Image = Literal["airflow", "postgres", "redis", "haproxy", "pgbouncer", "versitygw"]
"""Logical image: each platform knows how it gets one (an environment of wheels, a container image)."""


Grant = Literal["run task pods", "read task pods"]
"""What a service may ask of a platform that can refuse it."""


@dataclass(frozen=True)
class Health:
    """How to see that a service is ready. One of these probes.

    Attributes:
        http: URL that must answer 200.
        healthy: JSON paths into the answer that must read "healthy" (`scheduler.status`).
        tcp: `host:port` that must accept a connection.
        log: regular expression that the service's log must match.
        file: path of a file that the service writes once it is ready.
        timeout: seconds from start to ready.
    """

    http: pulumi.Input[str] = ""
    healthy: Sequence[str] = ()
    tcp: pulumi.Input[str] = ""
    log: str = ""
    file: pulumi.Input[str] = ""
    timeout: float = 300.0


@dataclass(frozen=True)
class Stop:
    """How a service is asked to end, and how many seconds it gets before it is killed."""

    signal: Literal["TERM", "INT", "QUIT"] = "TERM"
    grace: float = 10.0


@dataclass(frozen=True)
class Port:
    """A port of a service, by name.

    Attributes:
        service: name of the service that listens.
        name: `http`, `sql`, …
        number: what it is by convention; platforms with an address per service use it as it is.
        wanted: the number that the user asked for on this machine; None lets the platform choose a free one.
        public: whether people and verifiers reach it from this machine, wherever its service runs.
    """

    service: str
    name: str
    number: int
    wanted: int | None = None
    public: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where a port is.

    Attributes:
        host: name or address that other services use.
        port: number that other services use.
        bind_host: address on which the service itself listens.
        bind_port: number on which the service itself listens.
        outside: `host:port` on this machine, where the port is public.
    """

    host: pulumi.Output[str]
    port: pulumi.Output[str]
    bind_host: pulumi.Output[str]
    bind_port: pulumi.Output[str]
    outside: pulumi.Output[str]

    @property
    def address(self) -> pulumi.Output[str]:
        """`host:port`."""
        return pulumi.Output.concat(self.host, ":", self.port)


@dataclass(frozen=True)
class Volume:
    """A folder that services share.

    Attributes:
        path: where a service of this platform sees it.
        name: what its platform knows it by.
    """

    path: pulumi.Output[str]
    name: str = ""


def folder_of(file: Volume) -> Volume:
    """The folder in which a file of `Platform.file` is."""
    return Volume(file.path.apply(lambda path: path.rpartition("/")[0]), file.name.rpartition("/")[0])


@dataclass(frozen=True)
class TaskCount:
    """How an autoscaler that counts tasks learns how many there are.

    Attributes:
        database: URL of the PostgreSQL that it asks, `postgresql://user:password@host:port/name`; a secret.
        query: what it asks; the answer is one number.
        slots: tasks that one replica runs at once.
    """

    database: pulumi.Input[str]
    query: str
    slots: int


@dataclass(frozen=True)
class ServiceSpec:
    """A long-running service, as a component describes it.

    Attributes:
        role: what it is (`scheduler`); label and key under `services` in the lab's outputs.
        image: logical image that holds the command.
        command: argument list, found on the image's PATH; secrets never stand in it.
        environment: plain settings.
        secrets: settings that no log, argument list, plain checkpoint or `inspect` may show.
        ports: what it listens on; the numbers come from `Platform.endpoint`.
        volumes: the shared folders it needs.
        health: readiness probe; None when running is all there is to see.
        belongings: folders that are all a service may write to, and that a user of its own then owns, where the
            platform can give it one; None runs it as everybody.
        reaches: ports of other services that are all it may reach, where the platform can part it from the others;
            None lets it reach every one.
        callers: roles whose services may connect to its ports, where the platform can refuse the others, and `task` for
            tasks in pods of their own; None lets every service and task of the lab.
        grants: what it may ask of the platform itself.
        zone: where it should run, if the platform has a zone of that name.
        autoscaling: how many of it an autoscaler of the platform keeps, all behind its ports; None for one.
        tasks: what that counts, where it is to count tasks.
    """

    role: str
    image: Image
    command: Sequence[pulumi.Input[str]]
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    secrets: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    ports: Sequence[Port] = ()
    volumes: Sequence[Volume] = ()
    health: Health | None = None
    stop: Stop = Stop()
    belongings: Sequence[Volume] | None = None
    reaches: Sequence[Port] | None = None
    callers: Sequence[str] | None = None
    grants: Sequence[Grant] = ()
    zone: str = ""
    autoscaling: Autoscaling | None = None
    tasks: TaskCount | None = None


@dataclass(frozen=True)
class JobSpec:
    """A command that runs once to its end; `up` fails with its last log lines when it does not exit 0."""

    role: str
    image: Image
    command: Sequence[pulumi.Input[str]]
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    secrets: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    volumes: Sequence[Volume] = ()
    timeout: float = 300.0


@dataclass(frozen=True)
class Service:
    """A service that runs: the resource to depend on, and how a verifier reaches it.

    Attributes:
        resource: done when the service is ready.
        facts: `name`, testinfra `host`, `endpoints` by port name, and `log` file, one entry per replica.
    """

    resource: pulumi.Resource
    facts: pulumi.Output[list[dict[str, Any]]]


def digest(text: str) -> str:
    """Tells one text of a configuration file from another: a service restarts when its settings change, not a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Platform(Protocol):
    """Where services run: processes, containers, pods."""

    name: str

    def offers(self, image: Image) -> bool:
        """Whether services of that image can run here; a lab does without an optional one that cannot."""

    def endpoint(self, port: Port) -> Endpoint:
        """Where `port` is; known before its service runs, so that services can name each other."""

    def volume(self, name: str, contents: Sequence[Path], opts: pulumi.ResourceOptions) -> Volume:
        """A shared folder that starts with `contents` (files and folders of this project)."""

    def exchange(self, name: str, opts: pulumi.ResourceOptions) -> Volume:
        """A folder that this machine and the services see under the same path: for files that they leave each other."""

    def outside(self, volume: Volume) -> pulumi.Output[str]:
        """Where this machine sees a volume that a service has been given."""

    def file(
        self, name: str, text: pulumi.Input[str], opts: pulumi.ResourceOptions, *, writable: bool = False
    ) -> Volume:
        """A file that services read, not readable by other users; may hold secrets.

        Args:
            writable: they open it for writing.
        """

    def service(self, name: str, spec: ServiceSpec, opts: pulumi.ResourceOptions) -> Service:
        """Start a service and wait until it is ready."""

    def job(self, name: str, spec: JobSpec, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Run a command once."""


@dataclass(frozen=True)
class TaskPod:
    """A pod that runs one task, as the KubernetesExecutor makes it from a template.

    Attributes:
        environment: plain settings; a task needs no secret one.
        volumes: the shared folders it needs.
        requests: of `cpu` and `memory`, in Kubernetes' words.
        limits: of the same.
        labels: of its own, beside those of the lab.
        annotations: of its own.
    """

    environment: Mapping[str, pulumi.Input[str]]
    volumes: Sequence[Volume]
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class PodPlatform(Platform, Protocol):
    """A platform on which a task may have a pod of its own."""

    def place(self) -> pulumi.Output[dict[str, str]]:
        """Where pods are: the file `kubeconfig`, its `context`, and the `namespace`."""

    def task_options(self) -> Mapping[str, pulumi.Input[str]]:
        """Airflow options, by `section.key`, with which the KubernetesExecutor finds its way."""

    def task_objects(self, settings: str, password: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
        """What tasks may mount: a claim `task-data`, and with these contents `task-settings` and `task-credentials`."""

    def task_templates(
        self, pods: Mapping[str, TaskPod | str], reaches: Sequence[Port], opts: pulumi.ResourceOptions
    ) -> Volume:
        """A folder of pod templates, by their files' names; those that are text as they are.

        Args:
            reaches: ports of services that are all that the pods may reach.
        """
