"""Docker resources of the embedded engine: the pulumi-docker types that the docker platform uses, property by property.

Everything made here carries the labels that the program gives it; what carries others is somebody else's, and is
neither adopted nor removed.
Source: https://www.pulumi.com/registry/packages/docker/api-docs/
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import requests
from docker.errors import DockerException, NotFound
from docker.types import EndpointConfig, LogConfig, Mount

from labs import processes
from labs.daemon import daemon, said
from labs.engines.base import name_of
from labs.engines.deployment import changed_keys
from labs.engines.providers import Difference, Provider
from labs.engines.values import Values
from labs.errors import LabError, UsageError

Shape = Mapping[str, "Shape"]
"""Names of the properties that are known, and of those in them; a list has the shape of its items."""

PERIOD = 100_000
"""Microseconds in which a container may use its share of the CPUs; Docker's own."""

_LABELS: Shape = {"label": {}, "value": {}}


class _Kind:
    """What network, volume and container have in common: named, labelled, made anew when anything differs."""

    kind: str
    shape: ClassVar[Shape]
    in_place: frozenset[str] = frozenset()

    def check(self, urn: str, olds: Values, news: Values) -> Values:
        _check_known(f"the {self.kind} {name_of(urn)}", news, self.shape)
        for required in ("name", "labels"):
            if required not in news:
                raise UsageError(f"{name_of(urn)} lacks the property {required}, by which the engine finds it again")
        return news

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        with daemon() as client:
            found = self._found(client, str(news["name"]))
            drifted = found is None or found.id != id or not _owned(found, olds)
            olds = {key: value for key, value in olds.items() if key in self.shape}
            running = found is None or self._as_it_should_be(client, found, news)
        changed = changed_keys(olds, news)
        # Docker leaves a limit as it is that it is not given
        replaces = tuple(key for key in changed if key not in self.in_place or key not in news)
        replaces = replaces or (("id",) if drifted else ())
        return Difference(bool(changed) or drifted or not running, replaces, delete_before_replace=True)

    def create(self, urn: str, news: Values) -> tuple[str, Values]:
        name = str(news["name"])
        with daemon() as client:
            left = self._found(client, name)
            if left is not None:
                if not _owned(left, news):
                    raise LabError(
                        f"there is a {self.kind} {name} that is not of this lab; remove or rename it, or name this "
                        "lab otherwise with --name"
                    )
                self._remove(left, news)
            try:
                made = self._make(client, name, news)
            except (DockerException, requests.RequestException) as error:
                raise LabError(f"the {self.kind} {name} could not be made: {said(error)}") from error
            return str(made.id), {**news, **self._given(made)}

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        raise LabError(f"the {self.kind} {news['name']} cannot be changed in place, a defect of this project")

    def delete(self, urn: str, id: str, outputs: Values) -> None:
        with daemon() as client:
            found = self._found(client, str(outputs["name"]))
            if found is not None and _owned(found, outputs):
                try:
                    self._remove(found, outputs)
                except (DockerException, requests.RequestException) as error:
                    raise LabError(f"the {self.kind} {outputs['name']} could not be removed: {said(error)}") from error

    def _given(self, made: Any) -> Values:
        """What the daemon chose."""
        return {}

    def _as_it_should_be(self, client: Any, found: Any, news: Values) -> bool:
        return True

    def _found(self, client: Any, name: str) -> Any:
        raise NotImplementedError

    def _make(self, client: Any, name: str, news: Values) -> Any:
        raise NotImplementedError

    def _remove(self, found: Any, news: Values) -> None:
        with suppress(NotFound):
            found.remove()


class NetworkProvider(_Kind):
    """`docker.Network`."""

    kind = "network"
    shape: ClassVar[Shape] = {"name": {}, "labels": _LABELS}

    def _found(self, client: Any, name: str) -> Any:
        return next((network for network in client.networks.list(names=[name]) if network.name == name), None)

    def _make(self, client: Any, name: str, news: Values) -> Any:
        return client.networks.create(
            name,
            driver="bridge",
            labels=_labels(news),
            check_duplicate=True,
        )


class VolumeProvider(_Kind):
    """`docker.Volume`."""

    kind = "volume"
    shape: ClassVar[Shape] = {"name": {}, "labels": _LABELS}

    def _found(self, client: Any, name: str) -> Any:
        with suppress(NotFound):
            return client.volumes.get(name)
        return None

    def _make(self, client: Any, name: str, news: Values) -> Any:
        return client.volumes.create(name, labels=_labels(news))

    def _given(self, made: Any) -> Values:
        return {"mountpoint": made.attrs["Mountpoint"]}


class ContainerProvider(_Kind):
    """`docker.Container`: created, and started; whether what runs in it is ready is not asked here."""

    kind = "container"
    in_place = frozenset({"cpus", "memory", "memorySwap", "restart", "destroyGraceSeconds"})
    shape: ClassVar[Shape] = {
        "name": {},
        "image": {},
        "hostname": {},
        "entrypoints": {},
        "command": {},
        "envs": {},
        "user": {},
        "init": {},
        "readOnly": {},
        "mustRun": {},
        "capabilities": {"adds": {}, "drops": {}},
        "securityOpts": {},
        "networkMode": {},
        "networksAdvanced": {"name": {}, "aliases": {}},
        "mounts": {"type": {}, "source": {}, "target": {}, "readOnly": {}},
        "tmpfs": {"*": {}},
        "ports": {"internal": {}, "external": {}, "ip": {}},
        "healthcheck": {"tests": {}, "interval": {}, "timeout": {}, "retries": {}},
        "restart": {},
        "cpus": {},
        "memory": {},
        "memorySwap": {},
        "logDriver": {},
        "logOpts": {"*": {}},
        "labels": _LABELS,
        "stopSignal": {},
        "destroyGraceSeconds": {},
    }

    def _found(self, client: Any, name: str) -> Any:
        with suppress(NotFound):
            return client.containers.get(name)
        return None

    def _as_it_should_be(self, client: Any, found: Any, news: Values) -> bool:
        return self._runs_if_it_must(found, news) and not self._off(client, found, news)

    @staticmethod
    def _runs_if_it_must(found: Any, news: Values) -> bool:
        return bool(found.status == "running") or not news.get("mustRun", True)

    @staticmethod
    def _off(client: Any, found: Any, news: Values) -> list[Values]:
        """The networks that a service should be on and is not; a name may have become that of another one."""
        if not news.get("mustRun", True):
            return []
        on = {each["NetworkID"] for each in found.attrs["NetworkSettings"]["Networks"].values()}
        find = NetworkProvider()._found
        wanted = news.get("networksAdvanced", ())
        return [each for each in wanted if getattr(find(client, str(each["name"])), "id", None) not in on]

    def _make(self, client: Any, name: str, news: Values) -> Any:
        container = client.containers.create(**arguments(news))
        try:
            container.start()
        except BaseException:
            container.remove(force=True)
            raise
        return container

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        with daemon() as client:
            container = client.containers.get(id)
            try:
                container.update(**_limits(news))
                off = self._off(client, container, news)
                for each in off:
                    client.networks.get(each["name"]).connect(container, aliases=each.get("aliases"))
                if off or not self._runs_if_it_must(container, news):
                    # it has a new address: on connections of its old one it might wait for long
                    self._resume(container, news, anew=bool(off))
            except DockerException as error:
                raise LabError(f"the container {news['name']} could not be changed: {said(error)}") from error
        return dict(news)

    @staticmethod
    def _resume(container: Any, news: Values, *, anew: bool) -> None:
        found = container.status
        if found == "paused":
            container.unpause()
        # before it starts one again, Docker waits, the longer the more often it has ended, and so would we
        if anew or found == "restarting":
            container.restart(timeout=int(news.get("destroyGraceSeconds", 0)))
        elif found != "paused":
            container.start()

    def _remove(self, found: Any, news: Values) -> None:
        with suppress(NotFound):
            grace = int(processes.grace(float(news.get("destroyGraceSeconds", 0))))
            if grace and found.status == "running":
                with suppress(requests.ReadTimeout):
                    found.stop(timeout=grace)
            found.remove(v=True, force=True)


PROVIDERS: Mapping[str, Provider] = {
    "docker:index/network:Network": NetworkProvider(),
    "docker:index/volume:Volume": VolumeProvider(),
    "docker:index/container:Container": ContainerProvider(),
}
"""By type token, for the embedded engine."""


def arguments(news: Values) -> dict[str, Any]:
    """What `docker.DockerClient.containers.create` takes for the inputs of a `docker.Container`."""
    capabilities = news.get("capabilities", {})
    health = news.get("healthcheck")
    networks = news.get("networksAdvanced", [])
    given: dict[str, Any] = {
        "name": news["name"],
        "image": news["image"],
        "hostname": news.get("hostname"),
        "entrypoint": news.get("entrypoints"),
        "command": news.get("command"),
        "environment": news.get("envs"),
        "user": news.get("user"),
        "init": news.get("init"),
        "read_only": news.get("readOnly"),
        "cap_add": capabilities.get("adds"),
        "cap_drop": capabilities.get("drops"),
        "security_opt": news.get("securityOpts"),
        "network_mode": news.get("networkMode"),
        "mounts": [
            Mount(each["target"], each["source"], type=each["type"], read_only=each.get("readOnly", False))
            for each in news.get("mounts", ())
        ],
        "tmpfs": news.get("tmpfs"),
        "ports": {
            f"{int(port['internal'])}/tcp": (port.get("ip", "0.0.0.0"), int(port["external"]))
            for port in news.get("ports", ())
        },
        "healthcheck": health and _health(health),
        "log_config": LogConfig(type=news.get("logDriver", ""), config=news.get("logOpts")),  # "" is the daemon's own
        "labels": _labels(news),
        "stop_signal": news.get("stopSignal"),
        **_limits(news),
    }
    if networks:
        if len(networks) > 1:
            raise UsageError(f"{news['name']} asks for {len(networks)} networks: the embedded engine gives it one")
        name = networks[0]["name"]
        given["network"] = name
        given["networking_config"] = {name: EndpointConfig("1.41", aliases=networks[0].get("aliases"))}
    return {key: value for key, value in given.items() if value is not None}


def _limits(news: Values) -> dict[str, Any]:
    """What of a container can be changed while it runs."""
    restart = {"Name": str(news.get("restart", "no")), "MaximumRetryCount": 0}
    memory = {"mem_limit": "memory", "memswap_limit": "memorySwap"}
    # a number of CPUs that is given whole cannot be changed afterwards, its parts can
    cpus = {"cpu_period": PERIOD, "cpu_quota": int(float(news["cpus"]) * PERIOD)} if "cpus" in news else {}
    return {
        "restart_policy": restart,
        **cpus,
        **{key: int(news[name]) * 2**20 for key, name in memory.items() if name in news},
    }


def _health(health: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "test": health["tests"],
        "retries": int(health.get("retries", 3)),
        **{key: _nanoseconds(str(health[key])) for key in ("interval", "timeout") if key in health},
    }


def _nanoseconds(duration: str) -> int:
    """
    >>> _nanoseconds("10s")
    10000000000
    """
    if not duration.endswith("s") or not duration[:-1].isdigit():
        raise UsageError(f"{duration!r} is no duration that the embedded engine reads: give whole seconds, as 10s")
    return int(duration[:-1]) * 10**9


def _labels(values: Values) -> dict[str, str]:
    return {str(each["label"]): str(each["value"]) for each in values.get("labels", ())}


def _labels_of(found: Any) -> dict[str, str]:
    attributes: dict[str, Any] = found.attrs
    return dict(attributes.get("Config", attributes).get("Labels") or {})


def _owned(found: Any, values: Values) -> bool:
    """Whether what was found has all the labels that the program gives to its own."""
    wanted = _labels(values)
    return bool(wanted) and wanted.items() <= _labels_of(found).items()


def _check_known(where: str, value: Any, shape: Shape) -> None:
    for item in value if isinstance(value, list) else [value]:
        for key, inner in item.items() if isinstance(item, dict) else ():
            known = shape.get(key, shape.get("*"))
            if known is None:
                raise UsageError(
                    f"{where} has the property {key}, which the embedded engine does not know; leave it out, or "
                    "install the Pulumi CLI and use --engine pulumi"
                )
            _check_known(f"{key} of {where}", inner, known)
