"""The dynamic resources of the docker platform: what no Docker resource stands for.

Each provider is importable, takes every setting through its inputs, and ends by itself: `create` is keyed by the
inputs and starts over what an interrupted one left; `delete` copes with what was only half made.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from labs import images
from labs.daemon import daemon, ended_before
from labs.errors import LabError
from labs.waiting import until

Props = dict[str, Any]


def _folders(props: Props) -> list[Path]:
    return [Path(props["path"]), *(Path(props["path"], name) for name in props["folders"])]


class _HostFolderProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        try:
            for folder in _folders(props):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(int(props["mode"]))
        except OSError as error:
            raise LabError(
                f"the lab directory {props['path']} cannot be written ({error.strerror}); make room or make it writable"
            ) from error
        return CreateResult(str(props["path"]), {key: props[key] for key in ("path", "mode", "folders")})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = ["path"] if olds["path"] != news["path"] else []
        changed = any(olds[key] != news[key] for key in ("mode", "folders"))
        missing = not all(folder.is_dir() for folder in _folders(news))
        return DiffResult(changes=bool(replaces) or changed or missing, replaces=replaces)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        shutil.rmtree(props["path"], ignore_errors=True)


class HostFolder(Resource, module="docker", name="HostFolder"):
    """A folder of this machine, for what containers see of it.

    Attributes:
        path: absolute path.
    """

    path: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        path: pulumi.Input[str],
        mode: int,
        folders: Sequence[str] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"path": path, "mode": mode, "folders": list(folders)}
        super().__init__(_HostFolderProvider(), name, props, opts)


class _HostFileProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        path = Path(props["path"])
        try:
            path.parent.mkdir(exist_ok=True)
            # Written in place, for a container sees this very file; its user is not this one, and the lab directory
            # above keeps everybody else out.
            path.write_text(props["text"])
            path.chmod(0o666 if props["writable"] else 0o644)
        except OSError as error:
            raise LabError(f"{path} cannot be written ({error.strerror}); make room there") from error
        return CreateResult(str(path), {key: props[key] for key in ("path", "text", "writable")})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = ["path"] if olds["path"] != news["path"] else []
        changed = any(olds[key] != news[key] for key in ("text", "writable")) or not Path(news["path"]).is_file()
        return DiffResult(changes=changed or bool(replaces), replaces=replaces)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        Path(props["path"]).unlink(missing_ok=True)


class HostFile(Resource, module="docker", name="HostFile"):
    """A file of this machine that containers see.

    Attributes:
        path: absolute path.
    """

    path: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        path: pulumi.Input[str],
        text: pulumi.Input[str],
        writable: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(_HostFileProvider(), name, {"path": path, "text": text, "writable": writable}, opts)


class _BuiltImageProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        if not props["own"]:
            images.build(props["image"], props["source"])
        return CreateResult(props["reference"], props)

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = [key for key in ("image", "source", "reference") if olds.get(key) != news[key]]
        return DiffResult(changes=bool(replaces) or not images.present(news["reference"]), replaces=replaces)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)


class BuiltImage(Resource, module="docker", name="BuiltImage"):
    """An image of this project, made where it is not there yet, or of the user's; it outlives the lab.

    Not a `docker.RemoteImage`, which has what a registry has: what is pulled still gets the locked packages and the
    user of all services, and other labs go on with it when this one goes.

    Args:
        own: name and tag of the user's, instead of this project's; "": none.

    Attributes:
        reference: name and tag.
    """

    reference: pulumi.Output[str]

    def __init__(
        self, name: str, image: str, source: images.Source, own: str = "", opts: pulumi.ResourceOptions | None = None
    ) -> None:
        reference = own or images.reference(image, source)
        props = {"image": image, "source": source, "own": own, "reference": reference}
        super().__init__(_BuiltImageProvider(), name, props, opts)


class _JoinedProvider(ResourceProvider):
    def create(self, props: Props) -> CreateResult:
        with daemon() as client:
            try:
                if not self._joined(client, props):
                    client.networks.get(props["network"]).connect(props["container"], aliases=[props["alias"]])
            except APIError as error:
                raise LabError(
                    f"{props['alias']} could not be joined to the network {props['network']} ({error.explanation}); "
                    "run `up` again"
                ) from error
        return CreateResult(f"{props['network']}-{props['alias']}", props)

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        keys = ("network", "container", "alias")
        with daemon() as client:
            return DiffResult(changes=any(olds[key] != news[key] for key in keys) or not self._joined(client, news))

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    def delete(self, _id: str, props: Props) -> None:
        with daemon() as client, contextlib.suppress(APIError):  # either may be gone
            client.networks.get(props["network"]).disconnect(props["container"], force=True)

    @staticmethod
    def _joined(client: Any, props: Props) -> bool:
        try:
            return props["network"] in client.containers.get(props["container"]).attrs["NetworkSettings"]["Networks"]
        except NotFound:
            return False


class Joined(Resource, module="docker", name="Joined"):
    """A running container on one more network, under a name there.

    Attributes:
        network: its name.
    """

    network: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        network: pulumi.Input[str],
        container: pulumi.Input[str],
        alias: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"network": network, "container": container, "alias": alias}
        super().__init__(_JoinedProvider(), name, props, opts)


def last_lines(container: Container, count: int = 15) -> str:
    """The last lines of a container's log."""
    return str(container.logs(tail=count).decode(errors="replace")).strip()


def _probe(container: Container, health: Mapping[str, Any], test: list[str]) -> tuple[bool, str]:
    if health.get("log"):
        wanted = str(health["log"])
        # a moment as a number: of a date and time the client makes whole seconds, of which a run before may have a part
        said = container.logs(since=ended_before(container), tail=2000).decode(errors="replace")
        return (True, "its log says so") if re.search(wanted, said) else (False, f"its log does not match {wanted} yet")
    if not test:
        return True, "runs"
    try:
        code, output = container.exec_run(test)
    except APIError as error:  # it may have ended just now
        return False, str(error.explanation)
    said = output.decode(errors="replace").strip().splitlines()
    return code == 0, (said[-1] if said else f"its probe ended with {code}")


class _ReadyProvider(ResourceProvider):
    """A container that is up to its work, or whose job is done; whoever starts it again, it is waited for anew."""

    def create(self, props: Props) -> CreateResult:
        name, job = str(props["name"]), bool(props["job"])
        with daemon() as client:
            try:
                container = client.containers.get(props["container"])
            except NotFound as error:
                raise LabError(f"the container of {name} went away while it started; run `up` again") from error
            restarts = container.attrs["RestartCount"]  # of its life until now

            def seen() -> tuple[str | None, str]:
                container.reload()
                state = container.attrs["State"]
                if job and state["Status"] == "exited":
                    return ("ok" if state["ExitCode"] == 0 else "failed"), "exited"
                if not job and (state["Status"] != "running" or container.attrs["RestartCount"] > restarts):
                    return "failed", state["Status"]
                if job:
                    return None, state["Status"]
                ready, what = _probe(container, props["health"], props["test"])
                return ("ok" if ready else None), what

            def said() -> str:
                return f"the last lines of its log (`docker logs {container.name}`):\n{last_lines(container)}"

            timeout = float(props["health"]["timeout"])
            try:
                outcome = until(seen, what=f"{name} to be ready", timeout=timeout, interval=0.3, detail=said)
            except NotFound as error:
                raise LabError(f"the container of {name} went away while it started; run `up` again") from error
            if outcome == "failed":
                with contextlib.suppress(APIError):  # it must not be started over and over behind the user's back
                    container.stop(timeout=0)
                raise LabError(f"{name} {'failed' if job else 'ended while it started'}; {said()}")
            return CreateResult(str(props["container"]), {**props, "started": container.attrs["State"]["StartedAt"]})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        changed = any(olds.get(key) != news[key] for key in ("container", "health", "job", "test"))
        return DiffResult(changes=changed or not self._as_it_was(olds))

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self.create(news).outs)

    @staticmethod
    def _as_it_was(olds: Props) -> bool:
        """Whether a service is in the very run that was found ready; what a job has done stays done."""
        if olds["job"]:
            return True
        with daemon() as client:
            try:
                state = client.containers.get(olds["container"]).attrs["State"]
            except NotFound:
                return False
        well = state.get("Health", {}).get("Status") != "unhealthy"  # so is one that was paused until now
        return bool(state["Status"] == "running" and state["StartedAt"] == olds.get("started") and well)


class Ready(Resource, module="docker", name="Ready"):
    """Done when a container is ready, or when its job has ended with 0.

    Attributes:
        container: its id.
    """

    container: pulumi.Output[str]

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(_ReadyProvider(), name, dict(props), opts)
