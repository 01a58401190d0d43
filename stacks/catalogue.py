"""The catalogue: six labs and the ten sections of the curriculum, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from components.autoscaling import Autoscaling
from components.workers import Site, Workers
from labs.errors import UsageError, nearest

EDGE = "airflow.providers.edge3.executors.EdgeExecutor"

EXECUTORS = ("LocalExecutor", "CeleryExecutor", "KubernetesExecutor", EDGE)
"""What may stand in an executor list, each also behind an alias, `edge:airflow.…`."""


def class_name(executor: str) -> str:
    """The class that an entry of an executor list names.

    >>> class_name("celery:CeleryExecutor"), class_name(f"edge:{EDGE}")
    ('CeleryExecutor', 'EdgeExecutor')
    """
    return executor.rpartition(":")[2].rpartition(".")[2]


@dataclass(frozen=True)
class Extra:
    """Something that `--with` adds to a lab.

    Attributes:
        executor: which one the lab must have for it; "" where any will do.
        platform: which one the lab must be on; "" where any will do.
    """

    executor: str = ""
    platform: str = ""


EXTRAS: Mapping[str, Extra] = {
    "flower": Extra(executor="CeleryExecutor"),
    "keda": Extra(executor="CeleryExecutor", platform="kubernetes"),
    "log-store": Extra(executor="KubernetesExecutor"),
    "metrics-server": Extra(platform="kubernetes"),
}
"""What `--with` may add, by name."""

ROLES = ("api-server", "scheduler", "dag-processor", "triggerer")
"""Services of Airflow itself, of which a lab may have several."""

SCALABLE = "api-server"
"""That of them whose number an autoscaler may change: whoever asks for one is served by any."""


@dataclass(frozen=True)
class Lab:
    """One Airflow topology that teaches one thing.

    Attributes:
        name: what `up` takes.
        teaches: one line for `list`.
        executors: value of `[core] executor`, in order; the first is the default.
        sections: sections of the curriculum whose DAGs are deployed.
        platforms: where it runs today, the default first.
        needs: what it takes beyond Python and a package registry.
        workers: groups of Celery workers by name.
        sites: edge sites by name.
        replicas: how many of each of `ROLES`; one of those that are not named.
        budgets: how many of a role with several a planned disruption must leave; all but one where nothing is said.
        autoscaling: by group of workers, or `api-server`: how many of it an autoscaler keeps, instead of a number.
        pooled: whether PgBouncer shares out the database's connections, where the platform offers it.
        options: Airflow options by `section.key`, on top of the defaults.
        differs: by platform, fields of the lab that are otherwise there.

    Raises:
        UsageError: no executor, one that does not exist, or one that stands twice; replicas of no role, or none; a
            budget for what there is one of, or one that is never met; an autoscaler of nothing, or beside a number.
    """

    name: str
    teaches: str
    executors: tuple[str, ...]
    sections: tuple[str, ...]
    platforms: tuple[str, ...]
    needs: tuple[str, ...] = ()
    workers: Mapping[str, Workers] = field(default_factory=dict)
    sites: Mapping[str, Site] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    budgets: Mapping[str, int] = field(default_factory=dict)
    autoscaling: Mapping[str, Autoscaling] = field(default_factory=dict)
    pooled: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [executor.rpartition(":")[2] for executor in self.executors]
        if not names:
            raise UsageError(f"the executor list of {self.name} is empty: name at least one of {', '.join(EXECUTORS)}")
        for name in names:
            if name not in EXECUTORS:
                raise UsageError(
                    f"the executor list of {self.name} has {name!r}, which is no executor: "
                    f"{nearest(name, EXECUTORS)}use {', '.join(EXECUTORS)}"
                )
            if names.count(name) > 1:
                raise UsageError(f"the executor list of {self.name} has {name} twice: Airflow takes each once")
        for role, count in self.replicas.items():
            if role not in ROLES:
                raise UsageError(f"replicas.{role}: {nearest(role, ROLES)}use {', '.join(ROLES)}")
            if not isinstance(count, int) or count < 1:
                raise UsageError(f"replicas.{role} is {count}: it takes a number, 1 or more")
        scalable = (*self.workers, SCALABLE)
        for name in self.autoscaling:
            if name not in scalable:
                raise UsageError(f"autoscaling.{name}: {nearest(name, scalable)}use {', '.join(scalable)}")
            number = f"replicas.{name}" if name == SCALABLE else f"workers.{name}.replicas"
            count = self.count(name) if name == SCALABLE else self.workers[name].replicas
            if count > 1:
                raise UsageError(f"autoscaling.{name} and {number}={count} exclude each other: add {number}=1")
            if self.autoscaling[name].by == "tasks":
                self._check_owned(name)
        several = self._several()
        for role, least in self.budgets.items():
            if role not in several:
                there = f"use {', '.join(several)}" if several else "there are several of nothing"
                raise UsageError(f"budgets.{role}: {self.name} has not several of it: {nearest(role, several)}{there}")
            if not isinstance(least, int) or not 0 <= least < several[role]:
                raise UsageError(
                    f"budgets.{role} is {least} of {several[role]}, with which no node could ever be drained: give 0 "
                    f"to {several[role] - 1}, or ask for more replicas"
                )

    def _check_owned(self, name: str) -> None:
        """Tasks that an autoscaler counts are those of its workers and of no others."""
        if name == SCALABLE:
            raise UsageError(f"autoscaling.{name}.by is 'tasks', and an {name} runs none: use cpu")
        for other, group in self.workers.items():
            shared = set(group.queues) & set(self.workers[name].queues)
            if other != name and shared:
                raise UsageError(
                    f"autoscaling.{name} counts tasks of the queue {min(shared)}, which workers.{other} serves, too: "
                    f"nobody could tell whose they are; take it from one of them, or use autoscaling.{name}.by=cpu"
                )

    def on(self, platform: str) -> Lab:
        """The lab as it is on a platform."""
        return replace(self, **self.differs.get(platform, {}))

    def uses(self, executor: str) -> bool:
        """Whether the executor of that class name is in the list."""
        return any(spec.endswith(executor) for spec in self.executors)

    def count(self, role: str) -> int:
        """How many services of that role the lab has."""
        return self.replicas.get(role, 1)

    def bounds(self, name: str) -> tuple[int, int]:
        """How many services a role or a group of workers has at least, and at most."""
        if name in self.autoscaling:
            return self.autoscaling[name].least, self.autoscaling[name].most
        count = self.workers[name].replicas if name in self.workers else self.count(name)
        return count, count

    def _several(self) -> dict[str, int]:
        """The roles with services that stand in for one another, workers if all serve one queue, and how many."""
        counts = {role: self.bounds(role)[0] for role in ROLES}
        queues = [set(group.queues) for group in self.workers.values()]
        if queues and set.intersection(*queues):
            counts["worker"] = sum(self.bounds(name)[0] for name in self.workers)
        return {role: count for role, count in counts.items() if count > 1}

    def spares(self) -> dict[str, int]:
        """The same roles, and how many of each a planned disruption must leave."""
        return {role: self.budgets.get(role, count - 1) for role, count in self._several().items()}


@dataclass(frozen=True)
class Section:
    """One section of the curriculum, and the lab that serves it."""

    number: str
    title: str
    lab: str


PORTABLE = ("35.1", "35.5", "35.9")
"""Sections whose DAGs run unchanged on every executor."""

QUICK: Mapping[str, str] = {
    # A lost task process or scheduler is noticed within a lesson; production defaults behind each.
    "scheduler.task_instance_heartbeat_timeout": "30",  # 300
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "5",  # 10
    "scheduler.orphaned_tasks_check_interval": "10",  # 300
    "scheduler.scheduler_health_check_threshold": "20",  # 30
    "scheduler.scheduler_heartbeat_sec": "2",  # 5
    # between two tasks of a chain lies one sleep of an idle scheduler
    "scheduler.scheduler_idle_sleep_time": "0.25",  # 1
    "workers.min_heartbeat_interval": "1",  # 5; also how soon a slot of the LocalExecutor is free again
    # 3; more than in production, as an API server takes up to a minute to start again on two busy cores
    "workers.max_failed_heartbeats": "10",
}
"""Time-outs shorter than in production, but not so short that a busy two-core machine looks dead."""

CELERY: Mapping[str, str] = {
    # One process sends what the scheduler hands over, so that its order is the order in the broker; CPUs - 1 otherwise.
    "celery.sync_parallelism": "1",
    # As long as the provider's own default; said here, Celery does not warn of it in every task.
    "celery_broker_transport_options.visibility_timeout": "86400",
    # Seconds, for ever by default: nobody answers at the address of a broker whose pod is gone, and the kernel waits
    # two minutes for a connection and a quarter of an hour for an answer. A broker that only stands still should not
    # lose its connections soon: what it then sends to one is lost.
    # https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.redis.html
    "celery_broker_transport_options.socket_connect_timeout": "5",
    "celery_broker_transport_options.socket_timeout": "60",
    # How often sending a task is tried again after `[celery] operation_timeout`, a second; 3 by default. What cannot be
    # sent has failed, without a try.
    "celery.task_publish_max_retries": "60",
    # What Airflow has no options for: what the broker refuses is sent again until that second is over, where Celery
    # gives up after the third time; and a worker stores how a task began and ended when the result backend is back,
    # where by default it throws away a task whose beginning it cannot store, and tells nobody how one ended.
    # https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-always-retry
    "celery.extra_celery_config": json.dumps(
        {
            "task_publish_retry_policy": {"max_retries": 50, "interval_start": 0.1, "interval_max": 0.2},
            "result_backend_always_retry": True,
            "result_backend_max_sleep_between_retries_ms": 1000,
        }
    ),
}

PODS: Mapping[str, str] = {
    # Pods made in one turn of the scheduler; 1 in production.
    "kubernetes_executor.worker_pods_creation_batch_size": "8",
    # As in production: seconds after which a pod that has not begun its task is deleted and made anew, twice; then the
    # task is failed. A task's token is valid for as long, so it must be longer than a pod takes to start.
    "scheduler.task_queued_timeout": "600",
    # As in production: what failed is left to be looked into, what succeeded is not.
    "kubernetes_executor.delete_worker_pods": "True",
    "kubernetes_executor.delete_worker_pods_on_failure": "False",
}
"""How the KubernetesExecutor makes pods, and what it does with those that wait for long or have ended."""

TAKEOVER: Mapping[str, str] = {
    # What a lost triggerer had in hand is taken over within a lesson; production defaults behind each.
    "triggerer.triggerer_health_check_threshold": "15",  # 30
    "triggerer.job_heartbeat_sec": "2",  # 5
    "dag_processor.health_check_threshold": "20",  # 30
    # Eight services with a pool each must fit into one PostgreSQL where there is no PgBouncer.
    "database.sql_alchemy_max_overflow": "5",  # 10
}
"""What two of everything need beside `QUICK`."""

LABS: Mapping[str, Lab] = {
    lab.name: lab
    for lab in (
        Lab(
            name="local",
            teaches="tasks as parallel processes of one machine: slots, limits, queueing, shared resources",
            executors=("LocalExecutor",),
            sections=(*PORTABLE, "35.2"),
            platforms=("process", "docker", "kubernetes"),
            options={"core.parallelism": "4", **QUICK},  # 32 in production; each slot is a process of its own
        ),
        Lab(
            name="celery",
            teaches="tasks on workers that take them from a broker: queues, concurrency, priorities, debugging",
            executors=("CeleryExecutor",),
            sections=(*PORTABLE, "35.3", "35.8"),
            platforms=("process", "docker", "kubernetes"),
            needs=("a Redis server: from the PATH, or a wheel for Python up to 3.12",),
            workers={
                "default": Workers(("default",), concurrency=2),
                "heavy": Workers(("heavy_compute",), prefetch=4),  # as Celery by itself; 1 in Airflow
                "io": Workers(("io_bound",), concurrency=2),
                "compute": Workers(("compute",)),
            },
            options={**QUICK, **CELERY},
        ),
        Lab(
            name="kubernetes",
            teaches="each task in a pod of its own: templates, resources, placement, clean-up, debugging",
            executors=("KubernetesExecutor",),
            sections=(*PORTABLE, "35.4", "35.8"),
            platforms=("kubernetes",),
            needs=("Docker with kind, or an existing cluster",),
            options={**QUICK, **PODS},
        ),
        Lab(
            name="edge",
            teaches="tasks at sites that reach nothing but the API server",
            executors=(EDGE,),
            sections=(*PORTABLE, "35.6"),
            platforms=("process", "docker", "kubernetes"),
            sites={
                "site-a": Site(("default", "site_a"), concurrency=2),
                "site-b": Site(("site_b",)),
            },
            options=QUICK,
        ),
        Lab(
            name="multi",
            teaches="several executors side by side, chosen per DAG and per task",
            executors=("LocalExecutor", "celery:CeleryExecutor", f"edge:{EDGE}"),
            sections=(*PORTABLE, "35.7", "35.10"),
            platforms=("process", "docker", "kubernetes"),
            needs=("a Redis server: from the PATH, or a wheel for Python up to 3.12",),
            workers={"default": Workers(("default", "zone_b"), concurrency=2)},
            sites={"site-a": Site(("default", "site_a"))},
            options={"core.parallelism": "4", **QUICK, **CELERY},
            differs={
                # a scheduler's pod is no place for tasks where each may have a pod of its own
                "kubernetes": {
                    "executors": ("celery:CeleryExecutor", "KubernetesExecutor", f"edge:{EDGE}"),
                    "workers": {"default": Workers(("default", "heavy_compute", "io_bound", "zone_a"), concurrency=2)},
                    "options": {**QUICK, **CELERY, **PODS},
                }
            },
        ),
        Lab(
            name="ha",
            teaches="two of everything: what fails over, what is lost, how fast it recovers",
            executors=("CeleryExecutor",),
            sections=(*PORTABLE, "35.10"),
            platforms=("process", "docker", "kubernetes"),
            needs=("a Redis server: from the PATH, or a wheel for Python up to 3.12",),
            workers={
                "zone-a": Workers(("default", "heavy_compute", "io_bound", "zone_a"), concurrency=2, zone="a"),
                "zone-b": Workers(("default", "heavy_compute", "io_bound", "zone_b", "gpu"), concurrency=2, zone="b"),
            },
            replicas=dict.fromkeys(ROLES, 2),
            pooled=True,
            options={**QUICK, **CELERY, **TAKEOVER},
        ),
    )
}

SECTIONS: Mapping[str, Section] = {
    section.number: section
    for section in (
        Section("35.1", "Executor concepts", "local"),
        Section("35.2", "LocalExecutor", "local"),
        Section("35.3", "CeleryExecutor", "celery"),
        Section("35.4", "KubernetesExecutor", "kubernetes"),
        Section("35.5", "Executor-agnostic patterns", "local"),
        Section("35.6", "Edge executor", "edge"),
        Section("35.7", "Multi-executor configuration", "multi"),
        Section("35.8", "Executor debugging", "celery"),
        Section("35.9", "Executor performance", "celery"),
        Section("35.10", "Real-world executor patterns", "ha"),
    )
}


VARIANTS: Mapping[str, str] = {
    f"{lab.name}-{platform}": lab.name for lab in LABS.values() for platform in lab.platforms[1:]
}
"""Labs by the names that they have on further platforms, as in `celery-docker`."""

STACKS = (*LABS, *SECTIONS, *VARIANTS)
"""Every name with a committed stack."""


def find_lab(name: str) -> Lab:
    """The lab of that name, on whatever platform, or the one that serves that section.

    Raises:
        UsageError: there is neither; names the nearest.
    """
    if name in SECTIONS:
        return LABS[SECTIONS[name].lab]
    if name in STACKS:
        return LABS[VARIANTS.get(name, name)]
    raise UsageError(f"there is no lab or section {name!r}: {nearest(name, [*LABS, *SECTIONS])}`lab list` shows all")


def check_runnable(lab: Lab, platform: str) -> None:
    """Check that the lab runs on the platform today.

    Raises:
        UsageError: it does not; says where it does.
    """
    if platform not in lab.platforms:
        raise UsageError(
            f"the lab {lab.name!r} does not run on the platform {platform!r}: use {', '.join(lab.platforms)}"
        )
    if lab.uses("KubernetesExecutor") and platform != "kubernetes":
        raise UsageError("KubernetesExecutor needs the platform kubernetes: take it out of the executor list")
    if lab.budgets and platform != "kubernetes":
        raise UsageError("budgets are for the platform kubernetes: leave them out, or add --platform kubernetes")
    if lab.autoscaling and platform != "kubernetes":
        raise UsageError(
            "autoscaling is for the platform kubernetes: add --platform kubernetes, or give "
            "workers.NAME.autoscale=[MOST, LEAST], with which a worker itself has more or fewer processes"
        )
