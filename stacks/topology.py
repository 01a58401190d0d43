"""How the components of a lab hang together, on any platform."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from components.airflow import API, Airflow, settings_file, version
from components.api_server import ApiServer, ApiServerArgs
from components.broker import Broker, BrokerArgs
from components.celery_workers import CeleryWorkers, CeleryWorkersArgs
from components.dag_folder import DagFolder, DagFolderArgs
from components.dag_processor import DagProcessor, DagProcessorArgs
from components.database import MetadataDatabase, MetadataDatabaseArgs
from components.edge_site import EdgeSite, EdgeSiteArgs
from components.flower import Flower, FlowerArgs
from components.migration import MigrationJob, MigrationJobArgs
from components.platforms.base import Platform, Volume
from components.scheduler import Scheduler, SchedulerArgs
from components.secrets import LabSecrets
from components.triggerer import Triggerer, TriggererArgs
from stacks.catalogue import Lab


@dataclass(frozen=True)
class Settings:
    """What a user may set on a lab.

    Attributes:
        api_port: port of the API server on this machine; None: a free one.
        database_url: an existing PostgreSQL database to use.
        options: Airflow options by `section.key`, on top of the lab's.
        extras: what to add to the lab: `flower`.
    """

    api_port: int | None = None
    database_url: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()


def joined(components: Sequence[CeleryWorkers | EdgeSite]) -> pulumi.Output[list[dict[str, Any]]]:
    """The facts of several components in one list."""
    return pulumi.Output.all(*(component.facts for component in components)).apply(
        lambda groups: [fact for group in groups for fact in group]
    )


def build(lab: Lab, platform: Platform, settings: Settings) -> dict[str, pulumi.Input[object]]:
    """Declare every resource of the lab; returns the outputs that scenarios and the command line read."""
    secrets = LabSecrets("secrets")
    database = MetadataDatabase(
        "metadata-database",
        MetadataDatabaseArgs(platform, secrets.database_password, settings.database_url),
    )
    dags = DagFolder("dags", DagFolderArgs(platform, lab.sections))
    home = platform.file("airflow.cfg", settings_file(), pulumi.ResourceOptions())
    passwords = platform.file(
        "passwords.json",
        secrets.admin_password.apply(lambda password: json.dumps({"admin": password})),
        pulumi.ResourceOptions(),
    )
    options = {**lab.options, **settings.options}
    broker = Broker("broker", BrokerArgs(platform, secrets.broker_password)) if lab.workers else None
    airflow = Airflow(
        platform=platform,
        executors=lab.executors,
        secrets=secrets,
        database=database.url,
        home=Volume(home.path.apply(lambda path: path.rpartition("/")[0])),
        dags=dags.volume,
        passwords=passwords,
        broker=broker.url if broker else None,
        api=replace(API, wanted=settings.api_port),
        options=options,
    )
    coherent = airflow.coherence(["api-server", "scheduler", "dag-processor", "triggerer", "worker", "edge-worker"])
    migrated = MigrationJob("migration", MigrationJobArgs(airflow, after=coherent)).resource
    api_server = ApiServer("api-server", ApiServerArgs(airflow, after=migrated))
    scheduler = Scheduler("scheduler", SchedulerArgs(airflow, after=migrated))
    dag_processor = DagProcessor("dag-processor", DagProcessorArgs(airflow, after=migrated))
    triggerer = Triggerer("triggerer", TriggererArgs(airflow, after=migrated))
    services = {
        "metadata-database": database.facts,
        "api-server": api_server.facts,
        "scheduler": scheduler.facts,
        "dag-processor": dag_processor.facts,
        "triggerer": triggerer.facts,
    }
    if broker:
        services["broker"] = broker.facts
    groups = [CeleryWorkers(name, CeleryWorkersArgs(airflow, group, migrated)) for name, group in lab.workers.items()]
    if groups:
        services["worker"] = joined(groups)
    sites = [EdgeSite(name, EdgeSiteArgs(airflow, site, api_server)) for name, site in lab.sites.items()]
    if sites:
        services["edge-worker"] = joined(sites)
    if "flower" in settings.extras:
        services["flower"] = Flower("flower", FlowerArgs(airflow, secrets.admin_password, migrated)).facts
    return {
        "lab": lab.name,
        "platform": platform.name,
        "executors": list(lab.executors),
        "sections": list(lab.sections),
        "airflow_version": version(),
        "api_url": airflow.api_url,
        "admin_user": "admin",
        "admin_password": secrets.admin_password,
        "extras": list(settings.extras),
        "services": services,
        "paths": {
            "home": airflow.home.path,
            "dags": airflow.dags.path,
            "logs": airflow.home.path.apply(lambda path: f"{path}/logs"),
        },
        "options": options,
    }
