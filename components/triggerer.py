"""The triggerer: runs what deferred tasks wait for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, Service, ServiceSpec
from components.replicas import all_facts, replica_names


@dataclass(frozen=True)
class TriggererArgs:
    """What a triggerer is made from.

    Attributes:
        airflow: the deployment that it belongs to.
        after: what must be done before it starts.
        replicas: how many of it.
    """

    airflow: Airflow
    after: pulumi.Resource
    replicas: int = 1


class Triggerer(pulumi.ComponentResource):
    """A triggerer.

    Attributes:
        facts: name, host, endpoints and log of each replica.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/deferring.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: TriggererArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:Triggerer", name, {}, opts)
        self.facts = all_facts(self._replica(each, args).facts for each in replica_names(name, args.replicas))
        self.register_outputs({"facts": self.facts})

    def _replica(self, name: str, args: TriggererArgs) -> Service:
        airflow = args.airflow
        return airflow.platform.service(
            name,
            ServiceSpec(
                role="triggerer",
                image="airflow",
                command=["airflow", "triggerer", "--skip-serve-logs"],
                environment=airflow.environment("triggerer"),
                secrets=airflow.secret_environment("triggerer"),
                volumes=airflow.volumes,
                health=Health(log="Starting the triggerer"),  # said after its first heartbeat
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
