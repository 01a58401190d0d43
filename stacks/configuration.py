"""What a stack's configuration makes of a lab of the catalogue, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.autoscaling import Autoscaling
from components.workers import Site, Workers
from labs.errors import UsageError, nearest
from stacks.catalogue import EXTRAS, LABS, Lab

SHAPE = ("executors", "workers", "sites", "replicas", "budgets", "autoscaling")
"""What a configuration may change of a lab's data."""

Group = TypeVar("Group", Workers, Site, Autoscaling)


def configured(lab: Lab, config: Mapping[str, Any]) -> Lab:
    """The lab as a stack's configuration changes it.

    Args:
        config: `executors`, the list; `workers` and `sites`, what differs by name and field, as in
            `{"io": {"concurrency": 4}}`, where a new name makes a new group; `replicas`, how many by role; `budgets`,
            how many of them a planned disruption must leave; `autoscaling`, its bounds by name and field.

    Raises:
        UsageError: the lab could not run like that; names the value and what is accepted.
    """
    for key in config:
        if key not in SHAPE:
            raise UsageError(f"a lab has no {key!r} to configure: {nearest(key, SHAPE)}use {', '.join(SHAPE)}")
    changed = replace(
        lab,
        executors=_listed(config["executors"]) if "executors" in config else lab.executors,
        workers=_changed("workers", Workers, lab.workers, config.get("workers", {})),
        sites=_changed("sites", Site, lab.sites, config.get("sites", {})),
        replicas={**lab.replicas, **_mapping("replicas", config.get("replicas", {}), "ROLE")},
        budgets={**lab.budgets, **_mapping("budgets", config.get("budgets", {}), "ROLE")},
        autoscaling=_changed("autoscaling", Autoscaling, lab.autoscaling, config.get("autoscaling", {})),
    )
    _check_served(changed, "CeleryExecutor", "workers", changed.workers)
    _check_served(changed, "EdgeExecutor", "sites", changed.sites)
    return changed


def _listed(value: Any) -> tuple[str, ...]:
    """A list, given as such or as text with commas."""
    items = value if isinstance(value, (list, tuple)) else str(value or "").split(",")
    return tuple(filter(None, (str(item).strip() for item in items)))


def _changed(kind: str, make: type[Group], groups: Mapping[str, Group], changes: Any) -> dict[str, Group]:
    result = dict(groups)
    for name, values in _mapping(kind, changes, "NAME.FIELD").items():
        where = f"{kind}.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise UsageError(f"{where}: name it with lower-case letters, digits and dashes")
        known = [field.name for field in fields(make)]
        for key in _mapping(where, values, "FIELD"):
            if key not in known:
                raise UsageError(f"{where} has no {key!r}: {nearest(key, known)}use {', '.join(known)}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if "queues" in known and (name not in groups or "queues" in given):
            given["queues"] = _listed(given.get("queues", ()))
            _check_queues(where, given["queues"])
        try:
            result[name] = replace(result[name], **given) if name in result else make(**given)
        except UsageError as error:
            raise UsageError(str(error).replace(make.__name__, where)) from None
    return result


def _mapping(where: str, value: Any, rest: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is {value!r}: write {where}.{rest}=VALUE, as workers.default.concurrency=2")
    return value


def _check_queues(where: str, queues: Iterable[str]) -> None:
    known = {queue for lab in LABS.values() for group in lab.workers.values() for queue in group.queues}
    known |= {queue for lab in LABS.values() for site in lab.sites.values() for queue in site.queues}
    for queue in queues:
        if queue not in known:
            raise UsageError(
                f"{where}.queues has {queue!r}, a queue that no lab has: {nearest(queue, known)}"
                f"use {', '.join(sorted(known))}"
            )


def _check_served(lab: Lab, executor: str, kind: str, groups: Mapping[str, object]) -> None:
    if lab.uses(executor) and not groups:
        raise UsageError(f"{executor} has no {kind} in the lab {lab.name}: add {kind}.default.queues=default")
    if groups and not lab.uses(executor):
        raise UsageError(
            f"the executor list of {lab.name} has no {executor} for its {kind} {', '.join(groups)}: add it"
        )


def check_extras(lab: Lab, platform: str, extras: Collection[str]) -> None:
    """Check that the lab can have these extras on a platform, and lacks none.

    Raises:
        UsageError: there is no such extra, the lab lacks the executor or the platform that it belongs to, or what an
            autoscaler of the lab looks at is measured by an extra that was not asked for.
    """
    for name in extras:
        if name not in EXTRAS:
            raise UsageError(f"there is no extra {name!r}: {nearest(name, EXTRAS)}use {', '.join(EXTRAS)}")
        extra = EXTRAS[name]
        if extra.executor and not lab.uses(extra.executor):
            fitting = ", ".join(other.name for other in LABS.values() if other.uses(extra.executor))
            raise UsageError(f"the extra {name} needs {extra.executor}, which the lab {lab.name} lacks: use {fitting}")
        if extra.platform and extra.platform != platform:
            raise UsageError(f"the extra {name} needs the platform {extra.platform}: add --platform {extra.platform}")
    for name, scaling in lab.autoscaling.items():
        if scaling.by == "cpu" and "metrics-server" not in extras:
            raise UsageError(f"autoscaling.{name} looks at CPU, which nothing measures: add --with metrics-server")
        if scaling.by == "tasks" and "keda" not in extras:
            raise UsageError(f"autoscaling.{name} looks at tasks, which nothing counts: add --with keda")


def check_image(platform: str, image: str | None) -> None:
    """Check that a platform has images.

    Raises:
        UsageError: it has none, and one was asked for.
    """
    if image and platform == "process":
        raise UsageError("--airflow-image is for containers: add --platform docker or --platform kubernetes")


def read_template(path: Path) -> str:
    """The text of a pod template, checked as far as that goes without a cluster.

    Raises:
        UsageError: it is none, or the executor could do nothing with it.
    """
    try:
        text = path.read_text()
        pod = yaml.safe_load(text)
        containers = [each["name"] for each in pod["spec"]["containers"]] if pod["kind"] == "Pod" else []
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"--pod-template {path} is no pod as YAML ({error}): give a file with kind: Pod") from error
    if containers[:1] != ["base"]:
        names = ", ".join(containers) or "none"
        raise UsageError(
            f"--pod-template {path} has the containers {names}: the first must be base, which runs the task"
        )
    if wrong := unknown_field(pod):
        raise UsageError(
            f"--pod-template {path} has {wrong}correct it, as the executor would leave it out without a word"
        )
    return text


def unknown_field(value: Any, kind: str = "V1Pod", where: str = "") -> str:
    """The first field of a pod that Kubernetes does not know, as part of a sentence; "" where it knows them all.

    >>> unknown_field({"spec": {"containers": [{"imagePulPolicy": "Always"}]}})
    'spec.containers[0].imagePulPolicy, which Kubernetes does not know: did you mean imagePullPolicy? '
    """
    from kubernetes.client import models  # the package takes a second to import

    if isinstance(value, list) and kind.startswith("list["):
        inner = kind[len("list[") : -1]
        return next(filter(None, (unknown_field(each, inner, f"{where}[{n}]") for n, each in enumerate(value))), "")
    model = getattr(models, kind, None)
    if model is None or not isinstance(value, Mapping):
        return ""
    names = {text: field for field, text in model.attribute_map.items()}
    for key, inside in value.items():
        path = f"{where}.{key}".lstrip(".")
        if key not in names:
            return f"{path}, which Kubernetes does not know: {nearest(key, names)}"
        if wrong := unknown_field(inside, model.openapi_types[names[key]], path):
            return wrong
    return ""


def check_cluster(cluster: str) -> tuple[str, str, str]:
    """The parts of `kind` or `context:NAME`.

    Raises:
        UsageError: it is neither.
    """
    kind, _, name = parts = cluster.partition(":")
    if cluster != "kind" and not (kind == "context" and name):
        raise UsageError(f"--cluster {cluster}: use kind, or context:NAME with a context of your kubeconfig")
    return parts
