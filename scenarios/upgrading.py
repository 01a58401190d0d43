"""A lab that is asked for otherwise while it runs: what `preview` says, what `up` does, and which pods are others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from labs.console import is_change
from labs.daemon import daemon
from labs.engines.base import Event, Step
from labs.errors import LabError
from scenarios.faulting_kubernetes import KubernetesServices

if TYPE_CHECKING:
    from labs.lab import Lab

WORKLOADS = ("Deployment", "StatefulSet")

Changes = dict[tuple[str, str, str], str]
"""Operation, kind and name of each change, and why it is made."""


def changes(steps: list[Step]) -> Changes:
    """The steps that change something."""
    return {(step.operation, step.type.rpartition(":")[2], step.name): step.reason for step in steps if is_change(step)}


@dataclass(frozen=True)
class Pods:
    """Which pod each service had at a moment."""

    of: Mapping[str, str]

    @classmethod
    def now(cls, services: KubernetesServices) -> Pods:
        def pod(service: str) -> str:
            with suppress(LabError):  # it has none
                return services.service_pod(service).id
            return ""

        return cls({service: pod(service) for service in services.states()})

    def replaced(self, later: Pods) -> set[str]:
        """The services that have another pod later, or whose pod was restarted."""
        return {service for service in self.of if later.of.get(service) != self.of[service]}


@dataclass
class Upgrade:
    """One `up` of a lab that was up.

    Attributes:
        said: what `preview` listed before.
        done: what `up` told that it did.
        replaced: services that have other pods than before.
    """

    said: Changes
    done: Changes = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    @property
    def workloads(self) -> set[str]:
        """The services of which `preview` said that their workload changes."""
        return {name for _, kind, name in self.said if kind in WORKLOADS}

    def rows(self) -> list[dict[str, Any]]:
        """For the report."""
        return [{"operation": o, "kind": k, "name": n, "why": why} for (o, k, n), why in self.said.items()]


def applied(lab: Lab, services: KubernetesServices) -> Upgrade:
    """Bring a lab up as it is asked for now."""
    before, upgrade, done = Pods.now(services), Upgrade(changes(lab.preview())), []

    def watch(event: Event) -> None:
        if event.kind == "done" and event.step:
            done.append(event.step)

    lab.up(watch)
    upgrade.done, upgrade.replaced = changes(done), before.replaced(Pods.now(services))
    return upgrade


@contextmanager
def another_image(used: str) -> Iterator[str]:
    """An image of this machine that differs from one by a variable, while the block runs."""
    name = "airflow-executor-labs-proof/airflow:another"
    with daemon() as client:
        recipe = BytesIO(f"FROM {used}\nENV LAB_IMAGE=another\n".encode())
        made, _ = client.images.build(fileobj=recipe, tag=name, rm=True, forcerm=True)
        try:
            yield name
        finally:
            made.reload()
            for tag in made.tags:  # also the one that labs know it by
                client.images.remove(tag)


@contextmanager
def upgraded(lab: Lab, services: KubernetesServices, options: Mapping[str, str], **shape: Any) -> Iterator[Upgrade]:
    """The lab with other Airflow options, or of another shape or image, while the block runs."""
    try:
        yield applied(lab.otherwise(options, **shape), services)
    finally:
        lab.up()
