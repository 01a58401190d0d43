"""The Pulumi program: a stack's configuration in, a lab out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pulumi

from components.airflow import check_options, version
from components.database import SQL, check_url
from components.platforms.base import Platform
from components.platforms.process.platform import ProcessPlatform
from labs.paths import run_directory
from stacks.catalogue import Lab, check_runnable, find_lab
from stacks.configuration import SHAPE, check_cluster, check_extras, check_image, configured
from stacks.topology import Settings, build


def _process(_config: pulumi.Config, _lab: Lab) -> Platform:
    return ProcessPlatform(run_directory(pulumi.get_stack()))


def _docker(config: pulumi.Config, _lab: Lab) -> Platform:
    from components.platforms.docker.platform import DockerPlatform  # pulumi-docker takes a while to import

    return DockerPlatform(run_directory(pulumi.get_stack()), _own_image(config))


def _kubernetes(config: pulumi.Config, lab: Lab) -> Platform:
    from components.clusters.context import ContextCluster  # as does pulumi-kubernetes
    from components.clusters.keda import Keda
    from components.clusters.kind import KindCluster
    from components.clusters.metrics_server import MetricsServer
    from components.platforms.kubernetes.platform import KubernetesPlatform
    from components.platforms.kubernetes.resources import NodeImage
    from labs import images

    home, (kind, _, context) = run_directory(pulumi.get_stack()), check_cluster(config.get("cluster") or "kind")
    extras = config.get_object("extras") or ()
    measured, counted = "metrics-server" in extras, "keda" in extras
    url = config.get("database_url")
    database = urlsplit(check_url(url)).port or SQL.number if url else None
    if kind == "context":
        theirs = ContextCluster(context, spread=bool(lab.spares()), measured=measured, counted=counted)
        fetched = config.get("airflow_image") or ""  # by the cluster itself
        return KubernetesPlatform(home, theirs, lab.spares(), database=database, airflow_image=fetched)
    dedicated = config.get_bool("dedicated") or False
    cluster = KindCluster(home, dedicated=dedicated, port=config.get_int("api_port"))
    source, _ = images.chosen() if measured or counted else ("packages", "")

    def image(name: str) -> pulumi.Output[str]:
        return NodeImage(f"{name}-image", name, source, cluster.kubeconfig, cluster.nodes).reference

    if measured:
        MetricsServer(cluster.kubeconfig, image("metrics-server"))
    counting = [Keda(cluster.kubeconfig, image("keda"), image("keda-adapter"))] if counted else []
    return KubernetesPlatform(home, cluster, lab.spares(), counting, database, _own_image(config))


def _own_image(config: pulumi.Config) -> str:
    """The user's image of Airflow, of those of this machine; "" where the labs' own is wanted."""
    from labs import images

    name = config.get("airflow_image")
    return images.own(name, version()) if name else ""


PLATFORMS: Mapping[str, Callable[[pulumi.Config, Lab], Platform]] = {
    "process": _process,
    "docker": _docker,
    "kubernetes": _kubernetes,
}


def main() -> None:
    """Read the stack's configuration, build the lab, export what scenarios need."""
    config = pulumi.Config()
    shape = {key: config.get_object(key) for key in SHAPE if config.get(key) is not None}
    known = find_lab(config.require("lab"))
    platform = config.get("platform") or known.platforms[0]
    lab = configured(known.on(platform), shape)
    check_runnable(lab, platform)
    extras = tuple(config.get_object("extras") or ())
    check_extras(lab, platform, extras)
    check_image(platform, config.get("airflow_image"))
    options = config.get_object("options") or {}
    check_options(options)
    settings = Settings(
        api_port=config.get_int("api_port"),
        database_url=config.get("database_url"),
        pod_template=config.get("pod_template"),
        options=options,
        extras=extras,
        rotation=config.get("rotation") or "",
    )
    outputs = build(lab, PLATFORMS[platform](config, lab), settings)
    for name, value in outputs.items():
        pulumi.export(name, value)
    pulumi.export("name", pulumi.get_stack())


if __name__ == "__main__":
    main()
