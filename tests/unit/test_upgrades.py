"""What `up` changes of a lab in a cluster when something else is asked for: what must be, as `preview` said."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.airflow import read_by, version
from components.secrets import NAMES, _Generated
from labs import images
from labs.console import is_change
from labs.engines.base import PROJECT, Event, Stack, Step, type_of
from labs.engines.embedded import EmbeddedEngine
from labs.engines.providers import Difference
from labs.engines.values import Values
from labs.paths import PROJECT_ROOT
from tests.unit.test_kubernetes_platform import Objects

WORKLOADS = ("Deployment", "StatefulSet", "Job")
AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer"}
WORKERS = {"default-1", "heavy-1", "io-1", "compute-1"}


@dataclass
class Cluster(Objects):
    """A cluster that is pretended, with images of a tag, which remembers what it was told last."""

    tag: str = "abc"
    tags: set[str] = field(default_factory=set)

    def given(self, name: str, news: Values) -> dict[str, Values]:
        rotation = news.get("rotation", "")
        return {
            **super().given(name, news),
            "LabSecrets": {each: f"hidden-{each}-{rotation}" for each in NAMES},
            "NodeImage": {"reference": news.get("own") or f"airflow-executor-labs/{news.get('image')}:{self.tag}"},
        }

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        if type_of(urn).endswith("NodeImage"):
            return Difference(news["own"] != olds["own"] or not olds["reference"].endswith(f":{self.tag}"))
        if type_of(urn).endswith(":Job"):
            return Difference(replaces=("spec",) if olds["spec"] != news["spec"] else ())
        return Difference()

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        return self.create(urn, news)[1]


@dataclass
class Upgraded:
    """A lab that is up, and what another `up` does to it."""

    lab: str
    folder: Path
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        self.engine = EmbeddedEngine()
        self.engine._registry = lambda _stack: {"*": self.cluster}  # type: ignore[method-assign]
        self.up()

    def stack(self, **config: Any) -> Stack:
        values = {"lab": self.lab, "platform": "kubernetes", **config}
        given = {
            f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
        }
        return Stack("upgraded", PROJECT_ROOT / "stacks", given, self.folder / "e")

    def up(self, **config: Any) -> list[Step]:
        steps: list[Step] = []

        def watch(event: Event) -> None:
            if event.kind == "done" and event.step:
                steps.append(event.step)

        self.engine.up(self.stack(**config), watch)
        return steps

    def changed(self, **config: Any) -> dict[str, set[str]]:
        """Names of what `up` changes, by kind, after `preview` has said the same."""
        said, done = (
            {(step.operation, step.type, step.name) for step in steps if is_change(step)}
            for steps in (self.engine.preview(self.stack(**config)), self.up(**config))
        )
        assert said == done
        found: dict[str, set[str]] = {}
        for _, type_, name in done:
            found.setdefault(type_.rpartition(":")[2], set()).add(name)
        return found

    def restarted(self, **config: Any) -> set[str]:
        """Names of the workloads among them."""
        changed = self.changed(**config)
        return set().union(*(changed.get(kind, set()) for kind in WORKLOADS))


def test_what_must_restart_does_and_nothing_else(tmp_path: Path) -> None:
    lab = Upgraded("celery", tmp_path)
    assert lab.changed() == {}, "nothing else is asked for"
    config: dict[str, Any] = {"workers": {"io": {"concurrency": 4}}}
    assert lab.changed(**config) == {"Deployment": {"io-1"}, "ServicePod": {"io-1-ready"}}
    readers = {
        "celery.task_track_started": {"scheduler", *WORKERS},
        "database.sql_alchemy_pool_recycle": {*AIRFLOW, *WORKERS, "migration"},
    }
    options: dict[str, str] = {}
    for option, restarted in readers.items():
        options[option] = "5"
        assert lab.restarted(**config, options=options) == restarted, option


def test_another_image_restarts_what_runs_it(tmp_path: Path) -> None:
    lab = Upgraded("kubernetes", tmp_path)
    options = {"kubernetes_executor.delete_worker_pods": "False"}
    assert lab.changed(options=options) == {"Deployment": {"scheduler"}, "ServicePod": {"scheduler-ready"}}
    lab.cluster.tag = "def"
    changed = lab.changed(options=options)
    assert changed["Deployment"] == AIRFLOW and changed["Job"] == {"migration"}
    assert "pod-templates" in changed["ConfigMap"], "the next tasks have it"


def test_a_users_image_restarts_what_runs_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "own", lambda name, release: f"known-by-its-content:{name}-{release}")
    lab = Upgraded("celery", tmp_path)
    changed = lab.changed(airflow_image="mine")
    assert changed["NodeImage"] == {"airflow-image"}
    assert changed["Deployment"] == {*AIRFLOW, *WORKERS} and changed["Job"] == {"migration"}
    used = {
        container["image"]
        for kind in ("Deployment", "Job")
        for (made, _), inputs in lab.cluster.made.items()
        if made == kind
        for container in inputs["spec"]["template"]["spec"]["containers"]
    }
    assert used == {f"known-by-its-content:mine-{version()}"}


def test_new_secrets_reach_whoever_has_one(tmp_path: Path) -> None:
    lab = Upgraded("ha", tmp_path)
    known = {name for kind, name in lab.cluster.made if kind in WORKLOADS}
    assert lab.restarted(rotation="a") == known - {"load-balancer", "broker"}


def test_secrets_are_new_when_others_are_asked_for_and_only_then() -> None:
    provider = _Generated()
    first = provider.create({"rotation": ""}).outs
    assert first and set(NAMES) <= set(first)
    assert not provider.diff("", first, {"rotation": ""}).changes
    assert provider.diff("", first, {"rotation": "a"}).changes
    second = provider.update("", first, {"rotation": "a"}).outs
    assert second and not {first[name] for name in NAMES} & {second[name] for name in NAMES}
    assert second["fernet_key"].split(",")[1:] == [first["fernet_key"]], "what it encrypted is lost"
    assert not provider.diff("", second, {"rotation": "a"}).changes
    assert not provider.diff("", second, {}).changes, "an `up` that does not ask keeps them"


def test_a_secret_that_is_new_to_this_release_leaves_the_others() -> None:
    provider = _Generated()
    old = {**provider.create({}).outs, "task_password": None}  # type: ignore[dict-item]
    assert provider.diff("", old, {}).changes
    new = provider.update("", old, {}).outs
    assert new and new["task_password"] and all(new[name] == old[name] for name in NAMES if name != "task_password")


def test_a_migration_reads_little() -> None:
    assert read_by("database.load_default_connections", "migration")
    assert not read_by("scheduler.parsing_processes", "migration")
