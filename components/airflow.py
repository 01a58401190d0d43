"""What every Airflow component of a lab shares: addresses, secrets, settings."""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components.database import limited
from components.platforms.base import Platform, Port, Volume
from components.secrets import LabSecrets
from labs.cache import IMAGES
from labs.errors import UsageError

API = Port("api-server", "http", 8080, public=True)

HEALTH = "/api/v2/monitor/health"
"""https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/logging-monitoring/check-health.html"""

FILE_SETTINGS = {
    "core": {
        "load_examples": "False",
        "min_serialized_dag_update_interval": "0",  # what a learner edits applies when saved; production default 30
        "dags_are_paused_at_creation": "False",
        "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "simple_auth_manager_users": "admin:admin",
    },
    "dag_processor": {
        "refresh_interval": "10",  # a new DAG shows within seconds; production default 300
        # 30; a file that was written is parsed at once, and the others each time would take an eighth of a core
        "min_file_process_interval": "120",
    },
    "api": {"workers": "1"},
    "usage_data_collection": {"enabled": "False"},
}
"""Settings that stand in airflow.cfg, so that a learner sees all three sources: file, environment, default."""

SHARED = (
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__EDGE__API_URL",
)
"""Settings that break Airflow in ways hard to read when two components differ in them."""

CELERY = ("scheduler", "worker", "flower")

READERS: Mapping[str, tuple[str, ...]] = {
    "core.parallelism": ("scheduler",),
    "scheduler.": ("scheduler",),
    "kubernetes_executor.": ("scheduler",),
    "celery.": CELERY,
    "celery_broker_transport_options.": CELERY,
}
"""Roles that read the options that begin so; changing one restarts nothing else."""

MIGRATES = "database."
"""What the options begin with that a migration reads: for others the database is not migrated again."""


def version() -> str:
    """The release of Airflow that `images/airflow.lock` pins."""
    pinned = re.search(r"^apache-airflow==(\S+)", (IMAGES / "airflow.lock").read_text(), re.MULTILINE)
    assert pinned
    return pinned[1]


def variable(option: str) -> str:
    """The environment variable of an option: `core.parallelism` is `AIRFLOW__CORE__PARALLELISM`."""
    section, _, key = option.rpartition(".")
    if not section or not key:
        raise UsageError(f"Airflow option {option!r} has no section: write section.key, as core.parallelism")
    return f"AIRFLOW__{section.upper().replace('.', '_')}__{key.upper()}"


def read_by(option: str, role: str) -> bool:
    """Whether a component of that role reads the option.

    >>> read_by("core.parallelism", "worker"), read_by("celery.worker_concurrency", "worker")
    (False, True)
    """
    if role == "migration":
        return option.startswith(MIGRATES)
    return all(role in roles for start, roles in READERS.items() if option.startswith(start))


def settings_file() -> str:
    """The text of airflow.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(FILE_SETTINGS)
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def check_options(options: Iterable[str]) -> None:
    """Check that options are the user's to set.

    Raises:
        UsageError: one of them is not; names it.
    """
    for option in options:
        if variable(option) in SHARED:
            raise UsageError(f"--set {option}: the lab sets that itself, the same for every component; leave it out")


def check_coherence(components: Mapping[str, Mapping[str, str]]) -> None:
    """Check that no two components differ in a setting that all must share.

    Raises:
        UsageError: names the setting and the components, never the values.
    """
    for key in SHARED:
        values: dict[str, list[str]] = {}
        for name, environment in components.items():
            if key in environment:
                values.setdefault(environment[key], []).append(name)
        if len(values) > 1:
            groups = " and ".join("/".join(names) for names in values.values())
            raise UsageError(f"{key} differs between {groups}: set it once, for the whole lab")


@dataclass(frozen=True)
class Airflow:
    """One Airflow deployment: what its components have in common.

    Attributes:
        platform: where the components run.
        executors: value of `[core] executor`, in order; the first is the default.
        secrets: the lab's secrets.
        database: SQLAlchemy URL of the metadata database.
        home: AIRFLOW_HOME, with airflow.cfg and the logs.
        dags: the DAG folder.
        passwords: file with the password of `admin`, for the simple auth manager.
        exchange: folder in which tasks leave files for whoever looks at them from this machine, and the other way.
        async_database: another URL for the asynchronous driver, where it cannot share a pool's connections.
        broker: URL of the Celery broker; None without the CeleryExecutor.
        log_store: the connection `log_store` as JSON; None without a log store.
        api: where everybody finds the API server.
        api_servers: where each of its replicas listens.
        options: Airflow options by `section.key`.
        pods: those with which the KubernetesExecutor finds its way.
        templates: folder of pod templates; None without the KubernetesExecutor.
    """

    platform: Platform
    executors: tuple[str, ...]
    secrets: LabSecrets
    database: pulumi.Output[str]
    home: Volume
    dags: Volume
    passwords: Volume
    exchange: Volume
    async_database: pulumi.Output[str] | None = None
    broker: pulumi.Output[str] | None = None
    log_store: pulumi.Output[str] | None = None
    api: Port = API
    api_servers: tuple[Port, ...] = (API,)
    options: Mapping[str, str] = field(default_factory=dict)
    pods: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    templates: Volume | None = None

    @property
    def api_url(self) -> pulumi.Output[str]:
        """Where the other components find the API server."""
        return pulumi.Output.concat("http://", self.platform.endpoint(self.api).address)

    @property
    def public_url(self) -> pulumi.Output[str]:
        """Where people find the UI and the REST API."""
        return pulumi.Output.concat("http://", self.platform.endpoint(self.api).outside)

    @property
    def volumes(self) -> list[Volume]:
        templates = [self.templates] if self.templates else []
        return [self.home, self.dags, self.passwords, self.exchange, *templates]

    def environment(self, role: str) -> dict[str, pulumi.Input[str]]:
        """The plain settings of a component."""
        settings: dict[str, pulumi.Input[str]] = {
            "AIRFLOW_HOME": self.home.path,
            "AIRFLOW__CORE__EXECUTOR": ",".join(self.executors),
            "AIRFLOW__CORE__DAGS_FOLDER": self.dags.path,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": self.passwords.path,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": pulumi.Output.concat(self.api_url, "/execution/"),
            "AIRFLOW__API__BASE_URL": self.public_url,
        }
        if self.uses("EdgeExecutor"):
            settings |= {
                "AIRFLOW__EDGE__API_ENABLED": "True",
                "AIRFLOW__EDGE__API_URL": pulumi.Output.concat(self.api_url, "/edge_worker/v1/rpcapi"),
                "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "3",  # 30 in production; a site counts as lost after five
                "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",  # 5 in production
            }
        settings |= {variable(option): value for option, value in self.pods.items()}
        return settings | {variable(option): value for option, value in self.options.items() if read_by(option, role)}

    def coherence(self, roles: Sequence[str]) -> pulumi.Output[None]:
        """Resolves when the components of these roles agree in what they share; fails as `check_coherence` does."""
        environments = {role: {**self.environment(role), **self.secret_environment(role)} for role in roles}
        return pulumi.Output.all(**environments).apply(check_coherence)

    def uses(self, executor: str) -> bool:
        """Whether the executor of that class name is in the list."""
        return any(executor in spec for spec in self.executors)

    def secret_environment(self, role: str) -> dict[str, pulumi.Input[str]]:
        """The secret settings of a component: what it needs, and the same in all that need it.

        What runs tasks speaks to the execution API alone, so no worker gets the metadata database; one at the edge
        gets nothing but the secret with which it logs in there.
        """
        jwt: dict[str, pulumi.Input[str]] = {"AIRFLOW__API_AUTH__JWT_SECRET": self.secrets.jwt_secret}
        if role == "edge-worker":
            return jwt
        settings = jwt | {
            "AIRFLOW__CORE__FERNET_KEY": self.secrets.fernet_key,
            "AIRFLOW__API__SECRET_KEY": self.secrets.api_secret_key,
        }
        database = self.database.apply(limited)
        if self.broker is not None:
            settings |= {
                "AIRFLOW__CELERY__BROKER_URL": self.broker,
                "AIRFLOW__CELERY__RESULT_BACKEND": database.apply(
                    lambda url: url.replace("postgresql+psycopg2://", "db+postgresql://")
                ),
            }
        if role == "worker":
            return settings
        if self.log_store is not None and role in ("api-server", "triggerer"):
            # who reads and who writes logs; a task asks the API server for the connection when it writes its own
            settings["AIRFLOW_CONN_LOG_STORE"] = self.log_store
        # Airflow would make it of the other one, whose parameters asyncpg does not know
        own = self.database.apply(lambda url: url.replace("postgresql+psycopg2://", "postgresql+asyncpg://"))
        return settings | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": self.async_database or own,
        }
