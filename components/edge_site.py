"""An edge site: a worker somewhere else, which reaches the API server and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.platforms.base import Health, ServiceSpec, Stop
from components.workers import Site


@dataclass(frozen=True)
class EdgeSiteArgs:
    """What a site is made from.

    Attributes:
        airflow: the deployment that it works for.
        site: its queues and size.
        after: what must be done before it starts: the API server.
    """

    airflow: Airflow
    site: Site
    after: pulumi.Resource


class EdgeSite(pulumi.ComponentResource):
    """A worker of the edge executor, with an AIRFLOW_HOME and, where the platform can, a user or namespace of its own.

    Attributes:
        facts: name, host, log, queues and slots of its worker.

    Source: https://airflow.apache.org/docs/apache-airflow-providers-edge3/stable/edge_executor.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: EdgeSiteArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:EdgeSite", name, {}, opts)
        airflow, site = args.airflow, args.site
        child = pulumi.ResourceOptions(parent=self)
        home = airflow.platform.volume(f"{name}-home", [], child)
        shared = airflow.environment("edge-worker")
        del shared["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
        registered = home.path.apply(lambda path: f"{path}/registered.pid")  # written once the API took it in
        service = airflow.platform.service(
            name,
            ServiceSpec(
                role="edge-worker",
                image="airflow",
                command=[
                    *("airflow", "edge", "worker", "--edge-hostname", name),
                    *("--queues", ",".join(site.queues), "--concurrency", str(site.concurrency), "--pid", registered),
                ],
                # its own short home has no airflow.cfg of the lab, which would load no examples either
                environment={**shared, "AIRFLOW_HOME": home.path, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
                secrets=airflow.secret_environment("edge-worker"),
                volumes=[home, airflow.dags, airflow.exchange],
                health=Health(file=registered),
                stop=Stop("INT", grace=site.longest),  # takes no more jobs, ends when those under way have
                belongings=[home],
                reaches=[airflow.api],
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
        known = {"queues": list(site.queues), "slots": site.concurrency}
        self.facts = service.facts.apply(lambda facts: [{**fact, **known} for fact in facts])
        self.register_outputs({"facts": self.facts})
