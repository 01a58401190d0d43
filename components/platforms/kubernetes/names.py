"""What things are called in a cluster: as in Airflow's official chart, for a release named airflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode

from labs.paths import CHECKOUT

RELEASE = "airflow"

SERVICE = "airflow-executor-labs/service"
"""Label of the pods of a service: its name in the lab's outputs."""

CHART: Mapping[str, str] = {
    "metadata-database": "postgresql",
    "broker": "redis",
    "migration": "run-airflow-migrations",
    "site": "edge-worker",
}
"""What the chart calls that for which the labs have another word."""


def slug(text: str) -> str:
    """
    >>> slug("35.4")
    '35-4'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def owner(lab: str) -> str:
    """Value of the label `labs.cluster.OWNER` on everything of a lab."""
    return f"{CHECKOUT}.{release_of(lab)}"


def release_of(lab: str) -> str:
    """Value of the chart's label `release`: the lab's name, which may end as no label does.

    >>> release_of("35.4.")
    '35.4'
    """
    return lab.rstrip("._-")


def port_name(role: str) -> str:
    """The name of a service's port, as in the chart; Kubernetes takes 15 letters."""
    return component_of(role)[:15].rstrip("-")


def namespace_of(lab: str) -> str:
    """The namespace of a lab, by the lab's name."""
    return f"{RELEASE}-{slug(lab)}"


def component_of(role: str) -> str:
    """The chart's label `component` for a role."""
    return CHART.get(role, role)


def object_name(name: str) -> str:
    """The name of a service's objects: `airflow-scheduler`, `airflow-postgresql`."""
    return f"{RELEASE}-{slug(CHART.get(name, name))}"


def container_of(role: str) -> str:
    """The name of a service's container, as in the chart."""
    return "base" if role == "worker" else component_of(role)


def host_of(pod: str, namespace: str, container: str, kubeconfig: str) -> str:
    """How testinfra reaches a pod. https://testinfra.readthedocs.io/en/latest/backends.html"""
    query = {"namespace": namespace, "container": container, "kubeconfig": kubeconfig}
    return f"kubectl://{pod}?{urlencode(query, safe='/')}"
