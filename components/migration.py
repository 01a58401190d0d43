"""The migration job: brings the metadata database to the schema of this Airflow, once, before anything else."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.airflow import Airflow
from components.platforms.base import JobSpec
from labs.cache import IMAGES, fingerprint


@dataclass(frozen=True)
class MigrationJobArgs:
    """What a migration job is made from.

    Attributes:
        airflow: the deployment whose database it migrates.
        after: what must hold before anything of Airflow starts.
    """

    airflow: Airflow
    after: pulumi.Output[None]


class MigrationJob(pulumi.ComponentResource):
    """`airflow db migrate`, left out when the database says that this Airflow migrated it.

    Attributes:
        resource: done when the database is at the schema.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/howto/set-up-database.html
    """

    def __init__(self, name: str, args: MigrationJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:MigrationJob", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        script = args.airflow.platform.volume(f"{name}-script", [IMAGES / "migrate.py"], child)
        self.resource = args.airflow.platform.job(
            name,
            JobSpec(
                role="migration",
                image="airflow",
                command=["python", pulumi.Output.concat(script.path, "/migrate.py")],
                environment={
                    **args.airflow.environment("migration"),
                    "AIRFLOW_LAB_FINGERPRINT": args.after.apply(lambda _: fingerprint(IMAGES / "airflow.lock")),
                },
                secrets=args.airflow.secret_environment("migration"),
                volumes=[*args.airflow.volumes, script],
            ),
            child,
        )
        self.register_outputs({})
