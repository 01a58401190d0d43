"""An existing cluster, by the name of its context in the user's kubeconfig."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pulumi
import yaml
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.clusters.base import check_spread, check_usable
from components.clusters.keda import check_counted
from components.clusters.metrics_server import check_measured
from labs.cluster import cluster
from labs.errors import LabError, UsageError, nearest

Props = dict[str, Any]


def read_context(context: str, files: Sequence[Path]) -> str:
    """The text of a kubeconfig with that context alone, without its namespace; what it names as files is in it.

    That of a lab, which `up` tells its user to export, so says the same as the one that it was made from.

    Raises:
        UsageError: no file, or none with that context.
    """
    contexts: dict[str, tuple[Path, Mapping[str, Any], Mapping[str, Any]]] = {}
    for path in files:
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except FileNotFoundError:
            continue
        except (OSError, yaml.YAMLError) as error:
            raise LabError(f"the kubeconfig {path} cannot be read ({error}); correct it, or name another") from error
        for each in values.get("contexts") or ():
            contexts.setdefault(each["name"], (path, values, each["context"]))
    if context not in contexts:
        known = f"{nearest(context, contexts)}use {', '.join(contexts)}" if contexts else "there is none at all"
        raise UsageError(
            f"no kubeconfig of {', '.join(map(str, files))} has a context {context!r}: {known}, or set KUBECONFIG"
        )
    path, values, chosen = contexts[context]
    place = {key: value for key, value in chosen.items() if key != "namespace"}
    return str(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "contexts": [{"name": context, "context": place}],
                "clusters": [_inline(values, "clusters", "cluster", chosen["cluster"], path)],
                "users": [_inline(values, "users", "user", chosen["user"], path)],
            }
        )
    )


def _inline(values: Mapping[str, Any], kind: str, key: str, name: str, path: Path) -> dict[str, Any]:
    found = next((each[key] for each in values.get(kind) or () if each["name"] == name), None)
    if found is None:
        raise LabError(f"the kubeconfig {path} has no {key} {name!r}, which its context names; correct it")
    found = dict(found)
    for field in ("certificate-authority", "client-certificate", "client-key"):
        if field in found:
            try:
                content = (path.parent / str(found.pop(field))).read_bytes()
            except OSError as error:
                raise LabError(
                    f"the kubeconfig {path} names a {field} that cannot be read ({error}); correct it"
                ) from error
            found[f"{field}-data"] = base64.b64encode(content).decode()
    return {"name": name, key: found}


def kubeconfig_files() -> list[Path]:
    """Where this user's kubeconfig may be. https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"""
    named = os.environ.get("KUBECONFIG")
    return [Path(each) for each in named.split(os.pathsep) if each] if named else [Path.home() / ".kube" / "config"]


class _ContextProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        context = str(props["context"])
        kubeconfig = read_context(context, kubeconfig_files())
        api, where = cluster(kubeconfig), f"the cluster of the context {context}"
        check_usable(api, where)
        if props["spread"]:
            check_spread(api, where)
        if props["measured"]:
            check_measured(api, where)
        if props["counted"]:
            check_counted(api, where)
        return CreateResult(context, {**props, "kubeconfig": kubeconfig, "nodes": []})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        return DiffResult(
            changes=any(olds.get(key) != news[key] for key in ("context", "spread", "measured", "counted"))
            or olds["kubeconfig"] != read_context(news["context"], kubeconfig_files()),
            replaces=["context"] if olds["context"] != news["context"] else [],
        )

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)


class ContextCluster(Resource, module="kubernetes", name="ContextCluster"):
    """A cluster of the user's, which the lab leaves as it is but for a namespace of its own.

    Args:
        spread: whether services are to be kept apart there, in zones.
        measured: whether it must have metrics-server.
        counted: whether it must have KEDA.

    Attributes:
        kubeconfig: text, a secret.
        nodes: empty: where it runs is not the lab's business.
    """

    kind: ClassVar[str] = "context"
    sees_home: ClassVar[bool] = False
    kubeconfig: pulumi.Output[str]
    nodes: pulumi.Output[Sequence[str]]

    def __init__(
        self,
        context: str,
        *,
        spread: bool = False,
        measured: bool = False,
        counted: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        hidden = pulumi.ResourceOptions(additional_secret_outputs=["kubeconfig"])
        needed = {"spread": spread, "measured": measured, "counted": counted}
        props = {"context": context, **needed, "kubeconfig": None, "nodes": None}
        super().__init__(_ContextProvider(), "cluster", props, pulumi.ResourceOptions.merge(hidden, opts))
