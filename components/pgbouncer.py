"""PgBouncer: many connections of clients over few of the metadata database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.database import SQL
from components.platforms.base import Health, Platform, Port, ServiceSpec, digest, folder_of

POOL = Port("pgbouncer", "sql", 6432)

CONNECTIONS = 20
"""Connections to the database per pool at most; the database is asked for no more, however many clients there are."""

CLIENTS = 500
"""Connections of clients at most."""


@dataclass(frozen=True)
class PgBouncerArgs:
    """What a PgBouncer is made from.

    Attributes:
        platform: where it runs.
        password: of the role `airflow`, in the lab's own database and here.
        callers: roles that use it.
    """

    platform: Platform
    password: pulumi.Input[str]
    callers: Sequence[str]


class PgBouncer(pulumi.ComponentResource):
    """A pool in front of the metadata database: a client holds a connection for a transaction.

    Attributes:
        url: SQLAlchemy URL, a secret.
        async_url: the same for asyncpg, whose prepared statements need a connection for a session; a secret.
        facts: how verifiers reach it.

    Source: https://www.pgbouncer.org/config.html
    """

    url: pulumi.Output[str]
    async_url: pulumi.Output[str]
    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: PgBouncerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:PgBouncer", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        endpoint, sql = args.platform.endpoint(POOL), args.platform.endpoint(SQL)
        login = pulumi.Output.concat('"airflow" "', args.password, '"\n')
        users = args.platform.file("pgbouncer-users.txt", login, child)
        settings = pulumi.Output.all(
            host=sql.host,
            port=sql.port,
            listen_addr=endpoint.bind_host,
            listen_port=endpoint.bind_port,
            auth_file=users.path,
        ).apply(_settings)
        configuration = args.platform.file("pgbouncer.ini", settings, child)
        service = args.platform.service(
            name,
            ServiceSpec(
                role="pgbouncer",
                image="pgbouncer",
                command=["pgbouncer", configuration.path],
                environment={
                    "SETTINGS_DIGEST": pulumi.Output.all(settings, login).apply(lambda seen: digest("".join(seen)))
                },
                ports=[POOL],
                callers=args.callers,
                volumes=[configuration, users],
                health=Health(tcp=endpoint.address, timeout=120),
                belongings=[folder_of(configuration), folder_of(users)],
            ),
            child,
        )
        self.facts = service.facts

        def url(driver: str, database: str) -> pulumi.Output[str]:
            named = pulumi.Output.concat(f"{driver}://airflow:", args.password, "@", endpoint.address, "/", database)
            # whoever uses the URL waits for the pool
            return pulumi.Output.secret(pulumi.Output.all(named, service.resource.urn).apply(lambda seen: str(seen[0])))

        self.url = url("postgresql+psycopg2", "airflow")
        self.async_url = url("postgresql+asyncpg", "airflow_sessions")
        self.register_outputs({"url": self.url, "async_url": self.async_url, "facts": self.facts})


def _settings(given: dict[str, Any]) -> str:
    """The text of pgbouncer.ini."""
    to = f"host={given['host']} port={given['port']} dbname=airflow"
    settings = {
        "listen_addr": given["listen_addr"],
        "listen_port": given["listen_port"],
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": given["auth_file"],
        "pool_mode": "transaction",
        "default_pool_size": CONNECTIONS,
        "max_client_conn": CLIENTS,
        "ignore_startup_parameters": "extra_float_digits",
        # 15 both; how long it waits for a database that is gone, and turns clients away before it tries again
        "server_connect_timeout": 5,
        "server_login_retry": 1,
        # a client whose machine is gone without a word holds its locks for half a minute, and not for two hours
        "tcp_keepidle": 10,
        "tcp_keepintvl": 5,
        "tcp_keepcnt": 4,
        "log_connections": 0,
        "log_disconnections": 0,
    }
    lines = [f"{key} = {value}" for key, value in settings.items()]
    return "\n".join(
        ["[databases]", f"airflow = {to}", f"airflow_sessions = {to} pool_mode=session", "[pgbouncer]", *lines, ""]
    )
