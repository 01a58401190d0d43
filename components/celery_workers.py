"""Celery workers: they take tasks of their queues from the broker and run them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.airflow import Airflow
from components.autoscaling import Autoscaling
from components.platforms.base import Health, ServiceSpec, Stop, TaskCount
from components.replicas import all_facts
from components.workers import Workers

EXECUTOR = "airflow.providers.celery.executors.celery_executor.CeleryExecutor"


def count_of_tasks(executors: Sequence[str], queues: Iterable[str]) -> str:
    """SQL that counts the tasks of the CeleryExecutor on these queues that wait or run.

    A task names its executor by its alias, path or class, or leaves it to the first of the list; another one may have a
    queue of the same name.

    Args:
        executors: `[core] executor`, in order.
    """
    names, default = {EXECUTOR, EXECUTOR.rpartition(".")[2]}, False
    for position, entry in enumerate(executors):
        alias, _, path = entry.rpartition(":")
        if path in names:
            names |= {alias} - {""}
            default = position == 0
    own = f"executor IN ({_texts(names)})" + (" OR executor IS NULL" if default else "")
    return (
        "SELECT count(*) FROM task_instance WHERE state IN ('queued', 'running') "
        f"AND queue IN ({_texts(queues)}) AND ({own})"
    )


def _texts(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in sorted(values))


@dataclass(frozen=True)
class CeleryWorkersArgs:
    """What a group of workers is made from.

    Attributes:
        airflow: the deployment that they belong to.
        workers: their queues and sizes.
        after: what must be done before they start.
        autoscaling: how many of them an autoscaler keeps; None: as many as `workers` says.
        database: URL of the metadata database itself, which an autoscaler may ask.
    """

    airflow: Airflow
    workers: Workers
    after: pulumi.Resource
    autoscaling: Autoscaling | None = None
    database: pulumi.Input[str] = ""


class CeleryWorkers(pulumi.ComponentResource):
    """A group of Celery workers that serve the same queues.

    A worker needs the broker, the result backend and the execution API, but no metadata database.

    Attributes:
        facts: name, host, log, queues and slots of each worker.

    Source: https://airflow.apache.org/docs/apache-airflow-providers-celery/stable/celery_executor.html
    """

    facts: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: CeleryWorkersArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:CeleryWorkers", name, {}, opts)
        scaled = args.autoscaling is not None
        names = [name] if scaled else [f"{name}-{number}" for number in range(1, args.workers.replicas + 1)]
        self.facts = all_facts(self._worker(each, args) for each in names)
        self.register_outputs({"facts": self.facts})

    def _worker(self, name: str, args: CeleryWorkersArgs) -> pulumi.Output[list[dict[str, Any]]]:
        airflow, workers = args.airflow, args.workers
        if workers.autoscale:
            size = ["--autoscale", ",".join(map(str, workers.autoscale))]
        else:
            size = ["--concurrency", str(workers.concurrency)]
        service = airflow.platform.service(
            name,
            ServiceSpec(
                role="worker",
                image="airflow",
                # the logs are in a folder that the API server shares, so no server for them
                command=[
                    *("airflow", "celery", "worker", "--skip-serve-logs", "--celery-hostname", f"{name}@%h"),
                    *("--queues", ",".join(workers.queues), *size),
                ],
                environment={
                    **airflow.environment("worker"),
                    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": str(workers.prefetch),
                },
                secrets=airflow.secret_environment("worker"),
                volumes=airflow.volumes,
                health=Health(log=rf"{name}@\S+ ready"),
                # a warm shutdown: running tasks may end within the grace
                stop=Stop("TERM", grace=workers.longest),
                zone=workers.zone,
                autoscaling=args.autoscaling,
                tasks=TaskCount(args.database, count_of_tasks(airflow.executors, workers.queues), workers.slots),
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[args.after]),
        )
        known = {"queues": list(workers.queues), "slots": workers.slots}
        return service.facts.apply(lambda facts: [{**fact, **known} for fact in facts])
