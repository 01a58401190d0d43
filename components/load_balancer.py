"""The load balancer: one address before several API servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.platforms.base import Health, Platform, Port, ServiceSpec, digest

HTTP = Port("load-balancer", "http", 8080, public=True)

RESOLVERS = """\
resolvers names
    parse-resolv-conf
    timeout resolve 1s
    hold valid 2s
    hold nx 2s
"""
"""Names are asked for again and again. https://docs.haproxy.org/2.6/configuration.html#5.3.2"""


@dataclass(frozen=True)
class LoadBalancerArgs:
    """What a load balancer is made from.

    Attributes:
        platform: where it runs.
        port: where it listens.
        servers: what it passes requests on to, in turn.
        after: what must be done before it starts: where names of servers are addresses of their own, it looks them up.
    """

    platform: Platform
    port: Port
    servers: Sequence[Port]
    after: pulumi.Resource


class LoadBalancer(pulumi.ComponentResource):
    """HAProxy: requests go to the API servers in turn, and only to those that answer.

    Attributes:
        facts: name, host, endpoints and log.

    Source: https://docs.haproxy.org/2.6/configuration.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:LoadBalancer", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        endpoint = args.platform.endpoint(args.port)
        servers = {port.service: args.platform.endpoint(port).address for port in args.servers}
        settings = pulumi.Output.all(
            bind=pulumi.Output.concat(endpoint.bind_host, ":", endpoint.bind_port), servers=servers
        ).apply(lambda given: _settings(given["bind"], given["servers"]))
        configuration = args.platform.file("haproxy.cfg", settings, child)
        service = args.platform.service(
            name,
            ServiceSpec(
                role="load-balancer",
                image="haproxy",
                command=["haproxy", "-db", "-f", configuration.path],
                environment={"SETTINGS_DIGEST": settings.apply(digest)},
                ports=[args.port],
                volumes=[configuration],
                health=Health(tcp=endpoint.address, timeout=120),
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
        self.facts = service.facts
        self.register_outputs({"facts": self.facts})


def _settings(bind: str, servers: dict[str, str]) -> str:
    """The text of haproxy.cfg.

    A request that an API server did not take is sent to the next one; one that it took is not sent twice. What is asked
    for its health needs no database: one that is away is no reason to take all servers away. Nor is a machine so busy
    that both answer late: one that hangs is given half a minute, while one that does not listen is passed by at once.
    A server whose address is a name may not have it yet, and have another one when it is back.
    """
    lines = [f"    server {name} {address}" for name, address in servers.items()]
    named = any(address.rpartition(":")[0] == name for name, address in servers.items())
    resolvers, resolved = (RESOLVERS, " init-addr none resolvers names") if named else ("", "")
    return f"""\
global
    maxconn 1000
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    retries 3
    option redispatch 1
    retry-on conn-failure
frontend api
    bind {bind}
    default_backend api-servers
backend api-servers
    balance roundrobin
    option httpchk GET /api/v2/version
    http-check expect status 200
    timeout check 10s
    default-server check inter 2s fall 3 rise 1{resolved}
{chr(10).join(lines)}
{resolvers}"""
