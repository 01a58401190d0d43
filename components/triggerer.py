"""The triggerer: runs what deferred tasks wait for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, ServiceSpec


@dataclass(frozen=True)
class TriggererArgs:
    """What a triggerer is made from.

    Attributes:
        airflow: the deployment that it belongs to.
        after: what must be done before it starts.
    """

    airflow: Airflow
    after: pulumi.Resource


class Triggerer(pulumi.ComponentResource):
    """A triggerer.

    Attributes:
        facts: name, host, endpoints and log of each replica.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/deferring.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: TriggererArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:Triggerer", name, {}, opts)
        airflow = args.airflow
        service = airflow.platform.service(
            name,
            ServiceSpec(
                role="triggerer",
                image="airflow",
                command=["airflow", "triggerer", "--skip-serve-logs"],
                environment=airflow.environment("triggerer"),
                secrets=airflow.secret_environment("triggerer"),
                volumes=airflow.volumes,
                health=Health(
                    http=airflow.health_url,
                    healthy=["triggerer.status"],
                    fresh="triggerer.latest_triggerer_heartbeat",
                ),
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
        self.facts = service.facts
        self.register_outputs({"facts": self.facts})
