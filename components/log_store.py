"""The log store: an S3 server that has the logs of tasks when their pods are gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.platforms.base import Health, Platform, Port, ServiceSpec

S3 = Port("log-store", "s3", 7070)

USER = "airflow"

BUCKET = "task-logs"

OPTIONS: Mapping[str, str] = {
    "logging.remote_logging": "True",
    "logging.remote_base_log_folder": f"s3://{BUCKET}",
    "logging.remote_log_conn_id": "log_store",
}
"""Airflow options of every component, and of tasks.

Source: https://airflow.apache.org/docs/apache-airflow-providers-amazon/stable/logging/s3-task-handler.html
"""

START = (
    f'mkdir -p "$0/objects/{BUCKET}" "$0/metadata" && '
    'exec versitygw --port "$1" posix --sidecar "$0/metadata" "$0/objects"'
)
"""A bucket is a folder and an object a file in it; the rest is kept in files beside, which every file system can do."""


@dataclass(frozen=True)
class LogStoreArgs:
    """What a log store is made from.

    Attributes:
        platform: where it runs.
        password: of its only user.
    """

    platform: Platform
    password: pulumi.Input[str]


class LogStore(pulumi.ComponentResource):
    """Versity's S3 gateway before a volume of its own.

    Attributes:
        connection: Airflow's connection to it as JSON, a secret.
        facts: how verifiers reach it.

    Source: https://github.com/versity/versitygw/wiki
    """

    connection: pulumi.Output[str]
    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: LogStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:LogStore", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        endpoint = args.platform.endpoint(S3)
        data = args.platform.volume(f"{name}-data", [], child)
        bound = pulumi.Output.concat(endpoint.bind_host, ":", endpoint.bind_port)
        service = args.platform.service(
            name,
            ServiceSpec(
                role="log-store",
                image="versitygw",
                command=["/bin/sh", "-c", START, data.path, bound],
                environment={"ROOT_ACCESS_KEY": USER},
                secrets={"ROOT_SECRET_KEY": args.password},
                ports=[S3],
                callers=["api-server", "triggerer", "scheduler", "worker", "task"],
                volumes=[data],
                health=Health(tcp=endpoint.address, timeout=120),
            ),
            child,
        )
        # whoever uses the connection waits for the server
        known = pulumi.Output.all(endpoint.address, args.password, service.resource.urn)
        self.connection = pulumi.Output.secret(known.apply(lambda seen: connection(seen[0], seen[1])))
        self.facts = service.facts
        self.register_outputs({"connection": self.connection, "facts": self.facts})


def connection(address: str, password: str) -> str:
    """Airflow's connection to an S3 server that knows its buckets by paths, not by host names."""
    extra = {
        "endpoint_url": f"http://{address}",
        "region_name": "us-east-1",  # the gateway's own
        # seconds, for each of five tries, in which a pod that wants to end waits for a store that is gone; 60 otherwise
        "config_kwargs": {"s3": {"addressing_style": "path"}, "connect_timeout": 5},
    }
    return json.dumps({"conn_type": "aws", "login": USER, "password": password, "extra": extra})
