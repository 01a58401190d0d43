"""The broker: Redis, from which Celery workers take their tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.platforms.base import Health, Platform, Port, ServiceSpec, digest

REDIS = Port("broker", "redis", 6379)


@dataclass(frozen=True)
class BrokerArgs:
    """What a broker is made from.

    Attributes:
        platform: where it runs.
        password: what clients must give.
    """

    platform: Platform
    password: pulumi.Input[str]


class Broker(pulumi.ComponentResource):
    """A Redis server with a password.

    Attributes:
        url: for `[celery] broker_url`, a secret.
        facts: how verifiers reach it.

    Source: https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html
    """

    url: pulumi.Output[str]
    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: BrokerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:Broker", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        endpoint = args.platform.endpoint(REDIS)
        data = args.platform.volume(f"{name}-data", [], child)
        settings = pulumi.Output.all(
            bind=endpoint.bind_host, port=endpoint.bind_port, dir=data.path, requirepass=args.password
        ).apply(_settings)
        configuration = args.platform.file("redis.conf", settings, child)
        service = args.platform.service(
            name,
            ServiceSpec(
                role="broker",
                image="redis",
                command=["redis-server", configuration.path],
                environment={"SETTINGS_DIGEST": settings.apply(digest)},
                ports=[REDIS],
                callers=["scheduler", "worker", "flower"],
                volumes=[data, configuration],
                health=Health(tcp=endpoint.address, timeout=120),
            ),
            child,
        )
        login = pulumi.Output.concat("redis://:", args.password, "@", endpoint.address, "/0")
        # whoever uses the URL waits for the server
        self.url = pulumi.Output.secret(pulumi.Output.all(login, service.resource.urn).apply(lambda seen: str(seen[0])))
        self.facts = service.facts
        self.register_outputs({"url": self.url, "facts": self.facts})


def _settings(given: dict[str, Any]) -> str:
    """The text of redis.conf: what is queued outlives a restart of the broker."""
    # a title would take the place of the environment, by which a lab's processes are found
    lines = [f"{key} {value}" for key, value in given.items()] + ["set-proc-title no"]
    return "\n".join([*lines, "appendonly yes", 'save ""', "daemonize no"]) + "\n"
