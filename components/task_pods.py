"""The pods of the KubernetesExecutor: what its templates say of every task's pod."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import yaml

from components.airflow import Airflow
from components.log_store import S3
from components.platforms.base import PodPlatform, TaskPod, Volume
from labs.errors import UsageError

SIZES: Mapping[str, tuple[dict[str, str], dict[str, str]]] = {
    "default.yaml": ({"cpu": "50m", "memory": "256Mi"}, {"cpu": "2", "memory": "1Gi"}),
    "small.yaml": ({"cpu": "25m", "memory": "192Mi"}, {"cpu": "500m", "memory": "512Mi"}),
}
"""Requests and limits by template; a task asks for another template than the first by its file."""

SETTINGS = json.dumps({"source": "ConfigMap task-settings", "rows": 3})
"""What tasks may read from a mounted file of settings."""


@dataclass(frozen=True)
class TaskPodsArgs:
    """What pod templates are made from.

    Attributes:
        airflow: the deployment that they belong to.
        platform: where its tasks run.
        password: that tasks may read from a mounted secret.
        template: text that takes the place of the first template.
    """

    airflow: Airflow
    platform: PodPlatform
    password: pulumi.Input[str]
    template: str | None = None


def check_executors(template: str, executors: Sequence[str]) -> None:
    """Check that pods of a template parse tasks with the executors of the lab.

    A task that names an executor which is not in the list is not found in its pod.

    Raises:
        UsageError: they have another list, or none although the lab has several executors.
    """
    base = yaml.safe_load(template)["spec"]["containers"][0]
    variables = {each["name"]: each.get("value") for each in base.get("env") or ()}
    given, wanted = variables.get("AIRFLOW__CORE__EXECUTOR"), ",".join(executors)
    if given != wanted and (given or len(executors) > 1):
        raise UsageError(
            f"the pod template gives tasks the executor list {given or 'none'}, but the lab's is {wanted}: set "
            "AIRFLOW__CORE__EXECUTOR to that in its container base"
        )


class TaskPods(pulumi.ComponentResource):
    """Pod templates, with all that a task needs and no secret of Airflow's: it speaks to the execution API alone.

    Attributes:
        templates: the folder that they are in.

    Raises:
        UsageError: a template of the user's has other executors than the lab.

    Source: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html
    """

    templates: Volume

    def __init__(self, name: str, args: TaskPodsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:TaskPods", name, {}, opts)
        airflow = args.airflow
        if args.template:
            check_executors(args.template, airflow.executors)
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
        child = pulumi.ResourceOptions(parent=self)
        own = {next(iter(SIZES)): args.template} if args.template else {}
        reaches = [airflow.api, *([S3] if airflow.log_store else [])]
        self.templates = args.platform.task_templates({**pods, **own}, reaches, child)
        args.platform.task_objects(SETTINGS, args.password, child)
        self.register_outputs({"path": self.templates.path})
