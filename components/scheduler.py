"""The scheduler: decides which task runs next and hands it to its executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, Service, ServiceSpec, Stop
from components.replicas import all_facts, replica_names


@dataclass(frozen=True)
class SchedulerArgs:
    """What a scheduler is made from.

    Attributes:
        airflow: the deployment that it belongs to.
        after: what must be done before it starts.
        replicas: how many of it.
    """

    airflow: Airflow
    after: pulumi.Resource
    replicas: int = 1


class Scheduler(pulumi.ComponentResource):
    """A scheduler with its executors; with the LocalExecutor, also the parent of every task process.

    Attributes:
        facts: name, host, endpoints and log of each replica.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/scheduler.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: SchedulerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:Scheduler", name, {}, opts)
        self.facts = all_facts(self._replica(each, args).facts for each in replica_names(name, args.replicas))
        self.register_outputs({"facts": self.facts})

    def _replica(self, name: str, args: SchedulerArgs) -> Service:
        airflow = args.airflow
        return airflow.platform.service(
            name,
            ServiceSpec(
                role="scheduler",
                image="airflow",
                # the logs are in a folder that the API server shares, so no server for them
                command=["airflow", "scheduler", "--skip-serve-logs"],
                environment=airflow.environment("scheduler"),
                secrets=airflow.secret_environment("scheduler"),
                volumes=airflow.volumes,
                health=Health(log="Starting the scheduler"),  # said after its first heartbeat
                stop=Stop("TERM", grace=15),
                grants=["run task pods"] if airflow.uses("KubernetesExecutor") else [],
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
