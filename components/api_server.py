"""The API server: UI, REST API, and the execution API that every task talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import HEALTH, Airflow
from components.autoscaling import Autoscaling
from components.platforms.base import Health, Port, Service, ServiceSpec
from components.replicas import all_facts


@dataclass(frozen=True)
class ApiServerArgs:
    """What an API server is made from.

    Attributes:
        airflow: the deployment that it belongs to.
        after: what must be done before it starts.
        autoscaling: how many an autoscaler keeps at its address; None: one at each address.
    """

    airflow: Airflow
    after: pulumi.Resource
    autoscaling: Autoscaling | None = None


class ApiServer(pulumi.ComponentResource):
    """The API server.

    Attributes:
        facts: name, host, endpoints and log of each replica.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/overview.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: ApiServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:ApiServer", name, {}, opts)
        self.facts = all_facts(self._replica(port, args).facts for port in args.airflow.api_servers)
        self.register_outputs({"facts": self.facts})

    def _replica(self, port: Port, args: ApiServerArgs) -> Service:
        airflow, endpoint = args.airflow, args.airflow.platform.endpoint(port)
        return airflow.platform.service(
            port.service,
            ServiceSpec(
                role="api-server",
                image="airflow",
                command=["airflow", "api-server", "--host", endpoint.bind_host, "--port", endpoint.bind_port],
                environment=airflow.environment("api-server"),
                secrets=airflow.secret_environment("api-server"),
                ports=[port],
                volumes=airflow.volumes,
                health=Health(
                    http=pulumi.Output.concat("http://", endpoint.address, HEALTH), healthy=["metadatabase.status"]
                ),
                grants=["read task pods"] if airflow.uses("KubernetesExecutor") else [],  # for the logs of what runs
                autoscaling=args.autoscaling,
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
