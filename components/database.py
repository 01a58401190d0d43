"""The metadata database: the lab's own PostgreSQL, or an existing server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pulumi

from components.platforms.base import Health, Platform, Port, ServiceSpec, Stop
from labs.errors import UsageError

SCHEMES = ("postgresql", "postgresql+psycopg2")

SQL = Port("metadata-database", "sql", 5432)

CONNECTIONS = 100
"""`max_connections` of the lab's own server, as PostgreSQL has it by default."""

RESERVED = 3
"""Of these for the superuser."""

LIMITS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""How long a client waits for a server that is gone without a word: for a connection, for an answer, and until what it
sends is acknowledged; in seconds, the last one in milliseconds. The kernel's own limits are two minutes, two hours and
a quarter of an hour.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""


def limited(url: str) -> str:
    """A SQLAlchemy URL for libpq, with `LIMITS` before its own parameters, which win.

    >>> limited("postgresql+psycopg2://u:p@h:1/db?sslmode=require").partition("&tcp_user_timeout=")[2]
    '30000&sslmode=require'
    """
    parts = urlsplit(url)
    return parts._replace(query=urlencode({**LIMITS, **dict(parse_qsl(parts.query))})).geturl()


def check_connections(needed: int, served: int) -> None:
    """Check that the lab's own server, or the pool before it, serves so many connections.

    Raises:
        UsageError: it cannot; says what to do.
    """
    if needed > served:
        raise UsageError(
            f"the lab's services may open {needed} connections to the metadata database, which serves {served}: "
            "ask for fewer replicas, or set database.sql_alchemy_max_overflow to less"
        )


def check_url(url: str) -> str:
    """The SQLAlchemy URL of an existing PostgreSQL database, with the driver that Airflow's environment has.

    Raises:
        UsageError: it is not that of a PostgreSQL database; the sentence leaves out the password.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname or not parts.path.strip("/"):
        raise UsageError(
            f"MetadataDatabaseArgs.url names no PostgreSQL database (scheme {parts.scheme or 'none'!r}): "
            "give postgresql://user:password@host:port/database; SQLite and MySQL are not served"
        )
    return parts._replace(scheme="postgresql+psycopg2").geturl()


@dataclass(frozen=True)
class MetadataDatabaseArgs:
    """What a metadata database is made from.

    Attributes:
        platform: where it runs.
        password: of the role `airflow` in the lab's own server.
        callers: roles that use the lab's own server.
        url: of an existing PostgreSQL database to use instead, `postgresql://user:password@host:port/name`.
    """

    platform: Platform
    password: pulumi.Input[str]
    callers: Sequence[str]
    url: str | None = None


class MetadataDatabase(pulumi.ComponentResource):
    """Where Airflow keeps DAG runs, task states, connections and variables.

    Attributes:
        url: SQLAlchemy URL, a secret.
        facts: how verifiers reach it; empty for an existing server.

    Raises:
        UsageError: `url` is not that of a PostgreSQL database.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/howto/set-up-database.html
    """

    url: pulumi.Output[str]
    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: MetadataDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:MetadataDatabase", name, {}, opts)
        if args.url is None:
            self._own(name, args)
        else:
            self.url = pulumi.Output.secret(check_url(args.url))
            self.facts = pulumi.Output.from_input([])
        self.register_outputs({"url": self.url, "facts": self.facts})

    def _own(self, name: str, args: MetadataDatabaseArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)
        sql = args.platform.endpoint(SQL)
        data = args.platform.volume(f"{name}-data", [], child)
        server = args.platform.service(
            name,
            ServiceSpec(
                role="metadata-database",
                image="postgres",
                command=["postgres", "-c", f"max_connections={CONNECTIONS}"],
                environment={
                    "POSTGRES_USER": "airflow",
                    "POSTGRES_DB": "airflow",
                    "PGDATA": data.path.apply(lambda path: f"{path}/pgdata"),
                    "PGPORT": sql.bind_port,
                },
                secrets={"POSTGRES_PASSWORD": args.password},
                ports=[SQL],
                callers=args.callers,
                volumes=[data],
                health=Health(tcp=sql.address, timeout=120),
                stop=Stop("INT", grace=20),  # a fast shutdown: open sessions are ended, not waited for
            ),
            child,
        )
        login = pulumi.Output.concat("postgresql+psycopg2://airflow:", args.password, "@", sql.address, "/airflow")
        # whoever uses the URL waits for the server
        ready = pulumi.Output.all(login, server.resource.urn).apply(lambda seen: str(seen[0]))
        self.url = pulumi.Output.secret(ready)
        self.facts = server.facts
