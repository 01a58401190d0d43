"""The pods of the KubernetesExecutor: what its templates say of every task's pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.airflow import Airflow
from components.platforms.base import PodPlatform, TaskPod, Volume

SIZES: Mapping[str, tuple[dict[str, str], dict[str, str]]] = {
    "default.yaml": ({"cpu": "50m", "memory": "256Mi"}, {"cpu": "2", "memory": "1Gi"}),
    "small.yaml": ({"cpu": "25m", "memory": "192Mi"}, {"cpu": "500m", "memory": "512Mi"}),
}
"""Requests and limits by template; a task asks for another template than the first by its file."""


@dataclass(frozen=True)
class TaskPodsArgs:
    """What pod templates are made from.

    Attributes:
        airflow: the deployment that they belong to.
        platform: where its tasks run.
    """

    airflow: Airflow
    platform: PodPlatform


class TaskPods(pulumi.ComponentResource):
    """Pod templates, with all that a task needs and no secret: it speaks to the execution API alone.

    Attributes:
        templates: the folder that they are in.

    Source: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html
    """

    templates: Volume

    def __init__(self, name: str, args: TaskPodsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:TaskPods", name, {}, opts)
        airflow = args.airflow
        pods = {
            file: TaskPod(
                environment=airflow.environment("worker"),
                volumes=[airflow.home, airflow.dags, airflow.exchange],
                requests=requests,
                limits=limits,
                labels={"pod-template": file.partition(".")[0]},
                annotations={"airflow-executor-labs/template": file},
            )
            for file, (requests, limits) in SIZES.items()
        }
        self.templates = args.platform.task_templates(pods, pulumi.ResourceOptions(parent=self))
        self.register_outputs({"path": self.templates.path})
