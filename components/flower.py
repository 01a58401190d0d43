"""Flower: a page that shows Celery's workers and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, Port, ServiceSpec

HTTP = Port("flower", "http", 5555, public=True)


@dataclass(frozen=True)
class FlowerArgs:
    """What a Flower is made from.

    Attributes:
        airflow: the deployment whose broker it watches.
        password: of the user `admin`.
        after: what must be done before it starts.
    """

    airflow: Airflow
    password: pulumi.Input[str]
    after: pulumi.Resource


class Flower(pulumi.ComponentResource):
    """Flower behind a password.

    Attributes:
        facts: name, host, endpoints and log.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/security/flower.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: FlowerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:Flower", name, {}, opts)
        airflow = args.airflow
        endpoint = airflow.platform.endpoint(HTTP)
        service = airflow.platform.service(
            name,
            ServiceSpec(
                role="flower",
                image="airflow",
                command=["airflow", "celery", "flower"],
                environment={
                    **airflow.environment("flower"),
                    "AIRFLOW__CELERY__FLOWER_HOST": endpoint.bind_host,
                    "AIRFLOW__CELERY__FLOWER_PORT": endpoint.bind_port,
                },
                secrets={
                    **airflow.secret_environment("flower"),
                    "AIRFLOW__CELERY__FLOWER_BASIC_AUTH": pulumi.Output.concat("admin:", args.password),
                },
                ports=[HTTP],
                volumes=airflow.volumes,
                health=Health(tcp=endpoint.address),
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
        self.facts = service.facts
        self.register_outputs({"facts": self.facts})
