"""The API server: UI, REST API, and the execution API that every task talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, ServiceSpec


@dataclass(frozen=True)
class ApiServerArgs:
    """What an API server is made from.

    Attributes:
        airflow: the deployment that it belongs to.
        after: what must be done before it starts.
    """

    airflow: Airflow
    after: pulumi.Resource


class ApiServer(pulumi.ComponentResource):
    """The API server.

    Attributes:
        facts: name, host, endpoints and log of each replica.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/overview.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: ApiServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:ApiServer", name, {}, opts)
        airflow = args.airflow
        service = airflow.platform.service(
            name,
            ServiceSpec(
                role="api-server",
                image="airflow",
                command=[
                    "airflow",
                    "api-server",
                    "--host",
                    airflow.platform.endpoint(airflow.api).bind_host,
                    "--port",
                    airflow.platform.endpoint(airflow.api).bind_port,
                ],
                environment=airflow.environment("api-server"),
                secrets=airflow.secret_environment("api-server"),
                ports=[airflow.api],
                volumes=airflow.volumes,
                health=Health(http=airflow.health_url, healthy=["metadatabase.status"]),
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
        self.facts = service.facts
        self.register_outputs({"facts": self.facts})
