"""How the components of a lab hang together, on any platform."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import cycle

import pulumi

from components.airflow import API, Airflow, settings_file, version
from components.api_server import ApiServer, ApiServerArgs
from components.broker import Broker, BrokerArgs
from components.celery_workers import CeleryWorkers, CeleryWorkersArgs
from components.dag_folder import DagFolder, DagFolderArgs
from components.dag_processor import DagProcessor, DagProcessorArgs
from components.database import CONNECTIONS, RESERVED, MetadataDatabase, MetadataDatabaseArgs, check_connections
from components.edge_site import EdgeSite, EdgeSiteArgs
from components.flower import Flower, FlowerArgs
from components.load_balancer import HTTP, LoadBalancer, LoadBalancerArgs
from components.log_store import OPTIONS, LogStore, LogStoreArgs
from components.migration import MigrationJob, MigrationJobArgs
from components.pgbouncer import CLIENTS, PgBouncer, PgBouncerArgs
from components.platforms.base import Platform, PodPlatform, digest, folder_of
from components.replicas import all_facts, replica_names
from components.scheduler import Scheduler, SchedulerArgs
from components.secrets import LabSecrets
from components.task_pods import TaskPods, TaskPodsArgs
from components.triggerer import Triggerer, TriggererArgs
from labs.errors import UsageError
from stacks.catalogue import ROLES, Lab


@dataclass(frozen=True)
class Settings:
    """What a user may set on a lab.

    Attributes:
        api_port: port of the API server on this machine; None: a free one.
        database_url: an existing PostgreSQL database to use.
        pod_template: text of the template of the KubernetesExecutor's pods, instead of the lab's own.
        options: Airflow options by `section.key`, on top of the lab's.
        extras: what to add to the lab, names of `EXTRAS`.
        rotation: any text; another than the last one gives the lab new secrets.
    """

    api_port: int | None = None
    database_url: str | None = None
    pod_template: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    rotation: str = ""


def connections(lab: Lab, options: Mapping[str, str]) -> int:
    """How many connections to the metadata database the lab's services may hold at the same time.

    Each Airflow service that uses it has a pool; so has Celery's result backend, in each scheduler and with one for
    each task that a worker runs at once. An autoscaler that counts tasks asks over one, and opens a new one before it
    closes that.
    """
    pool = _number(options, "database.sql_alchemy_pool_size", 5)
    pool += _number(options, "database.sql_alchemy_max_overflow", 10)
    counting = 2 * sum(each.by == "tasks" for each in lab.autoscaling.values())
    slots = sum(lab.bounds(name)[1] * group.slots for name, group in lab.workers.items())
    return (
        pool * sum(lab.bounds(role)[1] for role in ROLES) + counting + (slots + lab.count("scheduler") if slots else 0)
    )


def _number(options: Mapping[str, str], option: str, default: int) -> int:
    """An option that is a whole number. Raises UsageError when it is none."""
    try:
        return int(options.get(option, default))
    except ValueError:
        raise UsageError(f"--set {option}={options[option]}: it takes a whole number, as {default}") from None


def build(lab: Lab, platform: Platform, settings: Settings) -> dict[str, pulumi.Input[object]]:
    """Declare every resource of the lab; returns the outputs that scenarios and the command line read."""
    remote = "log-store" in settings.extras
    options = {**lab.options, **(OPTIONS if remote else {}), **settings.options}
    if lab.workers and not platform.offers("redis"):
        raise UsageError(
            f"the lab {lab.name} needs Redis, and this machine has no redis-server on the PATH nor a wheel of one for "
            "its Python: install the package redis-server, or use Python 3.12 or older"
        )
    several = lab.count("api-server") > 1
    balanced = several and platform.offers("haproxy")
    pooled = lab.pooled and not settings.database_url and platform.offers("pgbouncer")
    if not settings.database_url:
        check_connections(connections(lab, options), CLIENTS if pooled else CONNECTIONS - RESERVED)
    secrets = LabSecrets("secrets", settings.rotation)
    users = (*ROLES, *(["worker"] if lab.workers else []))  # of these, Celery's workers have results to write down
    callers = ("migration", *(["pgbouncer"] if pooled else users))
    database = MetadataDatabase(
        "metadata-database",
        MetadataDatabaseArgs(platform, secrets.database_password, callers, settings.database_url),
    )
    dags = DagFolder("dags", DagFolderArgs(platform, lab.sections))
    home = platform.file("airflow.cfg", settings_file(), pulumi.ResourceOptions())
    passwords = platform.file(
        "passwords.json",
        secrets.admin_password.apply(lambda password: json.dumps({"admin": password})),
        pulumi.ResourceOptions(),
        writable=True,  # Airflow locks it, and would add users that it misses
    )
    # a Celery worker whose broker refuses it does not end when it is told to go, so the broker's password stays
    broker = (
        Broker("broker", BrokerArgs(platform, LabSecrets("broker-secrets").broker_password)) if lab.workers else None
    )
    logs = LogStore("log-store", LogStoreArgs(platform, secrets.log_store_password)) if remote else None
    pool = PgBouncer("pgbouncer", PgBouncerArgs(platform, secrets.database_password, users)) if pooled else None
    entrance = replace(HTTP if balanced else API, wanted=settings.api_port)
    names = replica_names(API.service, lab.count("api-server"))
    api_servers = [replace(API, service=name, public=not balanced) for name in names]
    if not balanced:
        entrance = api_servers[0] = replace(api_servers[0], wanted=settings.api_port)
    pods = platform if lab.uses("KubernetesExecutor") and isinstance(platform, PodPlatform) else None
    airflow = Airflow(
        platform=platform,
        executors=lab.executors,
        secrets=secrets,
        database=pool.url if pool else database.url,
        async_database=pool.async_url if pool else None,
        home=folder_of(home),
        dags=dags.volume,
        passwords=passwords,
        exchange=platform.exchange("exchange", pulumi.ResourceOptions()),
        broker=broker.url if broker else None,
        log_store=logs.connection if logs else None,
        api=entrance,
        api_servers=tuple(api_servers),
        options=options,
        pods=pods.task_options() if pods else {},
    )
    if pods:
        task_pods = TaskPods(
            "task-pods", TaskPodsArgs(airflow, pods, secrets.api_secret_key.apply(digest), settings.pod_template)
        )
        airflow = replace(airflow, templates=task_pods.templates)
    coherent = airflow.coherence(["api-server", "scheduler", "dag-processor", "triggerer", "worker", "edge-worker"])
    direct = replace(airflow, database=database.url, async_database=None)  # a migration takes locks for its session
    migrated = MigrationJob("migration", MigrationJobArgs(direct, after=coherent)).resource
    api_server = ApiServer("api-server", ApiServerArgs(airflow, migrated, lab.autoscaling.get(API.service)))
    scheduler = Scheduler("scheduler", SchedulerArgs(airflow, migrated, lab.count("scheduler")))
    dag_processor = DagProcessor("dag-processor", DagProcessorArgs(airflow, migrated, lab.count("dag-processor")))
    triggerer = Triggerer("triggerer", TriggererArgs(airflow, migrated, lab.count("triggerer")))
    services = {
        "metadata-database": database.facts,
        "api-server": api_server.facts,
        "scheduler": scheduler.facts,
        "dag-processor": dag_processor.facts,
        "triggerer": triggerer.facts,
    }
    if balanced:
        balancer = LoadBalancer("load-balancer", LoadBalancerArgs(platform, entrance, airflow.api_servers, api_server))
        services["load-balancer"] = balancer.facts
    if pool:
        services["pgbouncer"] = pool.facts
    if broker:
        services["broker"] = broker.facts
    if logs:
        services["log-store"] = logs.facts
    # tasks know one address of the API: without a load balancer, that of another server in each group of workers
    entrances = [airflow] if balanced else [replace(airflow, api=port) for port in api_servers]
    groups = [
        CeleryWorkers(name, CeleryWorkersArgs(via, group, migrated, lab.autoscaling.get(name), database.url))
        for via, (name, group) in zip(cycle(entrances), lab.workers.items(), strict=False)
    ]
    if groups:
        services["worker"] = all_facts(group.facts for group in groups)
    if "flower" in settings.extras:
        services["flower"] = Flower("flower", FlowerArgs(airflow, secrets.admin_password, migrated)).facts
    sites = [EdgeSite(name, EdgeSiteArgs(airflow, site, api_server)) for name, site in lab.sites.items()]
    if sites:
        services["edge-worker"] = all_facts(site.facts for site in sites)
    return {
        "lab": lab.name,
        "platform": platform.name,
        "executors": list(lab.executors),
        "sections": list(lab.sections),
        "airflow_version": version(),
        "api_url": airflow.public_url,
        "internal_api_url": airflow.api_url,
        "other_api_urls": [each.public_url for each in entrances[1:]],
        "admin_user": "admin",
        "admin_password": secrets.admin_password,
        "extras": list(settings.extras),
        "services": services,
        "paths": {
            "home": airflow.home.path,
            "dags": platform.outside(airflow.dags),
            "logs": platform.outside(airflow.home).apply(lambda path: path and f"{path}/logs"),
            "exchange": airflow.exchange.path,
        },
        "options": options,
        **({"cluster": platform.place()} if isinstance(platform, PodPlatform) else {}),
        "notes": notes(lab, several, balanced, pooled),
    }


def notes(lab: Lab, several: bool, balanced: bool, pooled: bool) -> list[str]:
    """What of the lab depends on the machine, in sentences."""
    found = []
    if balanced:
        found.append("HAProxy passes requests on to the healthy API servers in turn.")
    elif several:
        found.append(
            "No haproxy on the PATH: programs try the API servers in turn, and each group of workers knows one of them."
        )
    if pooled:
        found.append("PgBouncer shares out the connections to the metadata database.")
    elif lab.pooled:
        found.append("No pgbouncer on the PATH, or a database of your own: connections go straight to it.")
    return found
