"""The DAG processor: parses the DAG folder into the metadata database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, Service, ServiceSpec
from components.replicas import all_facts, replica_names


@dataclass(frozen=True)
class DagProcessorArgs:
    """What a DAG processor is made from.

    Attributes:
        airflow: the deployment that it belongs to.
        after: what must be done before it starts.
        replicas: how many of it.
    """

    airflow: Airflow
    after: pulumi.Resource
    replicas: int = 1


class DagProcessor(pulumi.ComponentResource):
    """A DAG processor; the only component of Airflow 3 that parses DAG files for the scheduler.

    Attributes:
        facts: name, host, endpoints and log of each replica.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/dagfile-processing.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: DagProcessorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:DagProcessor", name, {}, opts)
        started: list[Service] = []
        # two that meet an empty database both enter the DAG bundle there, and one of them ends over it
        for each in replica_names(name, args.replicas):
            started.append(self._replica(each, args, [before.resource for before in started]))
        self.facts = all_facts(service.facts for service in started)
        self.register_outputs({"facts": self.facts})

    def _replica(self, name: str, args: DagProcessorArgs, before: list[pulumi.Resource]) -> Service:
        airflow = args.airflow
        return airflow.platform.service(
            name,
            ServiceSpec(
                role="dag-processor",
                image="airflow",
                command=["airflow", "dag-processor"],
                environment=airflow.environment("dag-processor"),
                secrets=airflow.secret_environment("dag-processor"),
                volumes=airflow.volumes,
                health=Health(log="Checking for new files in bundle"),  # said after its first heartbeat
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after, *before]),
        )
