"""A lab as the command line and the scenarios handle it: a stack with an engine, and what `up` left to know."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from labs import engines, processes
from labs.engines.base import PROJECT, Engine, Event, Stack, Step, Watcher
from labs.engines.lock import stack_lock
from labs.errors import Interrupted, LabError, UsageError
from labs.paths import PROJECT_ROOT, engine_directory, lab_directory, make_private, run_directory
from labs.waiting import interruptible
from stacks.catalogue import SECTIONS, check_runnable, find_lab
from stacks.configuration import check_cluster, check_extras, check_image, configured, read_template

if TYPE_CHECKING:
    from labs.airflow import Airflow

STACKS = PROJECT_ROOT / "stacks"


def _key(name: str) -> str:
    return f"{PROJECT}:{name}"


def _rotation() -> dict[str, str]:
    """What of a configuration asks for new secrets."""
    return {"rotation": secrets.token_hex(8)}


def _silent(_event: Event) -> None:
    """Watch nothing."""


def _read_configuration(name: str) -> dict[str, str]:
    """The configuration of a committed stack; structured values as JSON text."""
    values = yaml.safe_load((STACKS / f"Pulumi.{name}.yaml").read_text())["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def labs_here() -> list[str]:
    """Names of the labs that exist in this checkout."""
    return sorted(folder.parent.name for folder in lab_directory("any").parent.glob("*/engine"))


@dataclass(frozen=True)
class Lab:
    """One lab, existing or to be.

    Attributes:
        stack: what is applied.
        engine: what applies it.
    """

    stack: Stack
    engine: Engine

    @classmethod
    def request(
        cls,
        target: str,
        *,
        name: str | None = None,
        platform: str | None = None,
        cluster: str | None = None,
        dedicated: bool = False,
        engine: str = "auto",
        api_port: int | None = None,
        database_url: str | None = None,
        pod_template: Path | None = None,
        airflow_image: str | None = None,
        rotate: bool = False,
        options: Mapping[str, str] | None = None,
        extras: Sequence[str] = (),
        shape: Mapping[str, Any] | None = None,
    ) -> Lab:
        """The lab that the command line asks for.

        Args:
            cluster: `kind` or `context:NAME`, for the platform kubernetes.
            dedicated: whether the kind cluster is this lab's alone.
            pod_template: file with the pod template of every task that names no other.
            airflow_image: image of Airflow instead of the labs' own.
            rotate: whether it gets new secrets.
            options: Airflow options by `section.key`.
            extras: what to add, such as `flower`.
            shape: what differs in its executors, workers and sites; see `stacks.configuration.configured`.

        Raises:
            UsageError: there is no such lab, section, platform or engine, or the lab cannot be like that; nothing was
                touched.
        """
        data = find_lab(target)
        config = _read_configuration(target)
        wanted = {
            "platform": platform,
            "cluster": cluster,
            "dedicated": "true" if dedicated else None,
            "api_port": None if api_port is None else str(api_port),
            "database_url": database_url,
            "pod_template": read_template(pod_template) if pod_template else None,
            "airflow_image": airflow_image,
            **(_rotation() if rotate else {}),
            "options": json.dumps(dict(options)) if options else None,
            "extras": json.dumps(list(extras)) if extras else None,
            **{key: json.dumps(value) for key, value in (shape or {}).items()},
        }
        config |= {_key(key): value for key, value in wanted.items() if value is not None}
        chosen = config.get(_key("platform"), data.platforms[0])
        data = configured(data.on(chosen), shape or {})
        check_runnable(data, chosen)
        check_extras(data, chosen, extras)
        check_image(chosen, airflow_image)
        check_cluster(cluster or "kind")
        if (cluster or dedicated) and chosen != "kubernetes":
            raise UsageError("--cluster and --dedicated are for the platform kubernetes: add --platform kubernetes")
        if dedicated and config.get(_key("cluster"), "kind") != "kind":
            raise UsageError("--dedicated is for kind clusters: leave it out, or leave out --cluster")
        if pod_template and not data.uses("KubernetesExecutor"):
            raise UsageError(
                f"--pod-template is for the KubernetesExecutor, which the lab {data.name} lacks: leave it out"
            )
        for option in options or {}:
            if "." not in option:
                raise UsageError(f"--set {option}: name the option with its section, as core.parallelism=4")
        stack_name = name or (data.name if target in SECTIONS else target)
        return cls(
            Stack(stack_name, STACKS, config, engine_directory(stack_name)),
            engines.select(engine, PROJECT_ROOT),
        )

    @classmethod
    def of(cls, name: str) -> Lab:
        """The lab of that name, or of the section's lab, as its last `up` made it.

        Raises:
            UsageError: there is none; names those that exist.
        """
        if name in SECTIONS and not engine_directory(name).exists():
            name = SECTIONS[name].lab
        directory = engine_directory(name)
        try:
            record = json.loads((directory / "request.json").read_text())
            engine, config = record["engine"], record["config"]
        except FileNotFoundError:
            if not run_directory(name).exists():
                here = ", ".join(labs_here())
                raise UsageError(
                    f"there is no lab {name!r} here: {f'there is {here}' if here else f'`lab up {name}` makes it'}"
                ) from None
            # made by `pulumi up` itself
            find_lab(name)
            engine, config = "pulumi", _read_configuration(name)
        except (ValueError, KeyError) as error:
            raise LabError(
                f"{directory / 'request.json'} cannot be read ({error}); delete it and run `lab up {name}` again"
            ) from error
        return cls(Stack(name, STACKS, config, directory), engines.select(engine, PROJECT_ROOT))

    @property
    def name(self) -> str:
        return self.stack.name

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """What the last `up` exported; secrets in plain.

        Raises:
            UsageError: the lab is not up.
        """
        outputs = self.engine.outputs(self.stack)
        if not outputs or "api_url" not in outputs:
            raise UsageError(f"the lab {self.name!r} is not up: run `lab up {self.name}` first")
        return outputs

    @property
    def executors(self) -> tuple[str, ...]:
        return tuple(self.outputs["executors"])

    @property
    def platform(self) -> str:
        return str(self.outputs["platform"])

    @property
    def asked_platform(self) -> str:
        """The platform of the next `up`."""
        lab = find_lab(self.stack.config[_key("lab")])
        return self.stack.config.get(_key("platform"), lab.platforms[0])

    @property
    def asked_cluster(self) -> str:
        """The cluster of the next `up`, on the platform kubernetes."""
        return self.stack.config.get(_key("cluster"), "kind")

    @property
    def _on_kind(self) -> bool:
        return (self.asked_platform, self.asked_cluster) == ("kubernetes", "kind")

    @property
    def options(self) -> dict[str, str]:
        """The Airflow options that the user set, by `section.key`."""
        return dict(json.loads(self.stack.config.get(_key("options"), "{}")))

    def up(self, watch: Watcher = _silent, *, keep: bool = False) -> Lab:
        """Make the lab match its configuration.

        A first `up` that fails takes away what it made, unless `keep`; a later one leaves what was there.
        """
        if self._on_kind or self.asked_platform == "docker":
            from labs import images, node_image

            def tell(line: str) -> None:
                watch(Event("message", message=line))

            images.build_missing(tell)  # without a daemon nothing is touched
            if self._on_kind:
                node_image.choose(tell)  # which takes minutes where it is not there
        fresh = self._claim()
        if not fresh and self._rotates():
            self._hold(watch)
        try:
            self.engine.up(self.stack, watch)
        except (LabError, KeyboardInterrupt) as failure:
            if fresh and not keep:
                try:
                    self.down(watch)
                except LabError as left:
                    raise LabError(f"{failure}; what it had made could not be removed: {left}") from failure
            if isinstance(failure, KeyboardInterrupt):
                raise Interrupted("interrupted") from failure
            raise
        self._remember()
        made = replace(self)
        if self._held.exists():
            from labs import rotation

            rotation.release(made.airflow(), self._held)
        return made

    def airflow(self) -> Airflow:
        """The lab's Airflow, logged in when first used."""
        from labs.airflow import Airflow  # with a client that takes a moment to import

        user, password = self.outputs["admin_user"], self.outputs["admin_password"]
        return Airflow(self.outputs["api_url"], user, password, others=self.outputs.get("other_api_urls", ()))

    @property
    def _held(self) -> Path:
        """What `rotation.hold` has written."""
        return self.stack.directory / "held-pools.json"

    def _rotates(self) -> bool:
        """Whether this `up` gives the lab new secrets, and is not one of before once more."""
        asked = self.stack.config.get(_key("rotation"))
        return asked is not None and self._record.exists() and asked not in self._record.read_text()

    def _hold(self, watch: Watcher) -> None:
        from labs import rotation

        rotation.hold(replace(self).airflow(), self._held, lambda said: watch(Event("message", message=said)))

    @property
    def _record(self) -> Path:
        return self.stack.directory / "request.json"

    def _claim(self) -> bool:
        """Whether this `up` is the lab's first; of two at the same time, only one is."""
        if run_directory(self.name).exists() or self._record.exists():
            return False
        make_private(self.stack.directory)
        try:
            with self._record.open("x") as stream:
                json.dump({"engine": self.engine.name, "config": dict(self.stack.config)}, stream)
        except FileExistsError:
            return False
        return True

    def _remember(self) -> None:
        make_private(self.stack.directory)  # not there yet when `pulumi up` itself made the lab
        fresh = self._record.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({"engine": self.engine.name, "config": dict(self.stack.config)}, indent=1))
        fresh.replace(self._record)

    def preview(self) -> list[Step]:
        """What `up` would do."""
        return self.engine.preview(self.stack)

    def down(self, watch: Watcher = _silent) -> None:
        """Remove everything: what the engine knows of, and whatever a crash may have left beside it.

        A kind cluster whose nodes were stopped is started for it; with one that is gone went what was in it.
        """
        home = run_directory(self.name)
        with processes.going_down():
            if self.asked_platform == "kubernetes":
                self._empty_cluster(watch)  # first: the engine waits for one service after another
            self.engine.down(self.stack, watch)
        if self.asked_platform == "docker":
            from components.platforms.docker.inspection import remove_all

            remove_all(str(home))  # before processes are looked for: what Docker keeps up comes back
        if self.asked_platform == "kubernetes":
            from components.clusters.kind import release

            release(home)
        processes.end_all(str(home))
        shutil.rmtree(lab_directory(self.name), ignore_errors=True)
        with contextlib.suppress(OSError):
            lab_directory(self.name).parent.rmdir()

    def _empty_cluster(self, watch: Watcher) -> None:
        from components.clusters.kind import wake
        from components.platforms.kubernetes.inspection import remove_all

        home = run_directory(self.name)
        with stack_lock(self.stack, "down"), interruptible():
            if self._on_kind:
                wake(home)
            watch(Event("message", message="what the lab has in its cluster goes, all at once"))
            remove_all(home)

    def otherwise(self, options: Mapping[str, str], **shape: Any) -> Lab:
        """The lab with other Airflow options, or of another shape or image, as the next `up` may have it."""
        changed = {"options": {**self.options, **options}, **shape}
        return self._asked(**{k: v if isinstance(v, str) else json.dumps(v) for k, v in changed.items()})

    def rotated(self) -> Lab:
        """The lab with new secrets, as the next `up` may have it."""
        return self._asked(**_rotation())

    def _asked(self, **config: str) -> Lab:
        asked = {**self.stack.config, **{_key(key): value for key, value in config.items()}}
        return replace(self, stack=replace(self.stack, config=asked))

    @contextlib.contextmanager
    def reconfigured(self, options: Mapping[str, str], **shape: Any) -> Iterator[Lab]:
        """The lab with other Airflow options, or of another shape, by `up`, and back again."""
        try:
            yield self.otherwise(options, **shape).up()
        finally:
            self.up()


def log_files(outputs: Mapping[str, Any]) -> dict[str, Path]:
    """Log file of each service replica, by its name."""
    replicas = [replica for group in outputs["services"].values() for replica in group]
    return {replica["name"]: Path(replica["log"]) for replica in replicas}
