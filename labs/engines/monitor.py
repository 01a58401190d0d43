"""The resource monitor a Pulumi program talks to: in process, it makes each resource before it answers."""

from __future__ import annotations

import asyncio
import contextvars
import runpy
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from google.protobuf import empty_pb2
from pulumi.runtime import Settings, configure, run_in_stack
from pulumi.runtime.config import set_all_config
from pulumi.runtime.proto import engine_pb2, resource_pb2
from pulumi.runtime.settings import reset_options

from labs.engines.base import PROJECT, ROOT_TYPE, Event, Stack, type_of
from labs.engines.deployment import PARALLEL, Deployment, Goal
from labs.engines.values import decode, encode
from labs.errors import LabError, UsageError


class Monitor:
    """What the SDK expects of `pulumirpc.ResourceMonitor`; called from worker threads, one per resource."""

    def __init__(self, stack: Stack, deployment: Deployment) -> None:
        self._stack = stack
        self._deployment = deployment

    def GetDeploymentInfo(self, _: object) -> resource_pb2.DeploymentInfo:
        # What is missing here the SDK refuses by itself, or, as resource references, does without.
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[
                resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
                resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
                resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
            ]
        )

    def RegisterResource(self, request: Any) -> resource_pb2.RegisterResourceResponse:
        urn = self._urn(request)
        unsupported = [name for name in _UNSUPPORTED if getattr(request, name)]
        unsupported += ["aliases"] if any(map(_renames, request.aliases)) else []
        if unsupported:
            _refuse(f"the options {', '.join(unsupported)} of {request.name}")
        made = self._deployment.register(
            Goal(
                urn=urn,
                custom=request.custom,
                parent=request.parent,
                inputs=decode(request.object),
                dependencies=tuple(sorted(request.dependencies)),
                property_dependencies={
                    key: tuple(sorted(found.urns)) for key, found in sorted(request.propertyDependencies.items())
                },
                protect=request.protect,
                retain=request.retainOnDelete,
                delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
                ignore_changes=tuple(request.ignoreChanges),
                secret_outputs=tuple(request.additionalSecretOutputs),
                provider=request.provider.rpartition("::")[0],  # an id follows
            )
        )
        if made is None:
            # The program runs on with unknown values, so that what is under way can finish.
            return resource_pb2.RegisterResourceResponse(urn=urn, result=resource_pb2.FAIL)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=made.id, object=encode(made.outputs))

    def RegisterResourceOutputs(self, request: Any) -> empty_pb2.Empty:
        self._deployment.set_outputs(request.urn, decode(request.outputs))
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(self, _: object) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        return lambda *_: _refuse(f"`{name}`")

    def _urn(self, request: Any) -> str:
        parent = request.parent
        nested = parent and type_of(parent) != ROOT_TYPE
        types = f"{parent.split('::')[2]}${request.type}" if nested else request.type
        return f"urn:pulumi:{self._stack.name}::{PROJECT}::{types}::{request.name}"


_UNSUPPORTED = (
    "aliasURNs",
    "deletedWith",
    "importId",
    "remote",
    "replaceOnChanges",
    "replace_with",
    "transforms",
)


def _renames(alias: Any) -> bool:
    """Whether an alias is more than a type of before, of which this engine has made nothing."""
    spec = alias.spec
    return bool(alias.urn or spec.name or spec.stack or spec.project or spec.parentUrn or spec.noParent)


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        f"the embedded engine does not know {what}, which this program uses; install the Pulumi CLI and use "
        "--engine pulumi"
    )


class EngineLog:
    """What the SDK expects of `pulumirpc.Engine`: messages of the program for whoever watches."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def Log(self, request: Any) -> empty_pb2.Empty:
        if request.severity != engine_pb2.DEBUG:
            self._deployment.tell(Event("message", message=request.message))
        return empty_pb2.Empty()

    def RequirePulumiVersion(self, _: object) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def run_program(stack: Stack, deployment: Deployment) -> None:
    """Run the stack's program once, to its end, with every resource registered with `deployment`.

    A failed resource is not raised here: the deployment knows it.

    Raises:
        LabError: the program itself failed.
    """

    async def deploy() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(PARALLEL))  # every resource under way holds a thread
        loop.set_exception_handler(lambda *_: None)  # of futures that nobody awaits after a failure
        await run_in_stack(lambda: _execute(stack.program))

    def go() -> None:
        reset_options(project=PROJECT, stack=stack.name)
        set_all_config(dict(stack.config), [])
        configure(
            Settings(
                project=PROJECT,
                stack=stack.name,
                monitor=Monitor(stack, deployment),
                engine=EngineLog(deployment),
                dry_run=deployment.dry_run,
                organization="organization",
                root_directory=str(stack.program.parent),
            )
        )
        asyncio.run(deploy())

    try:
        contextvars.copy_context().run(go)
    except LabError:
        raise
    except Exception as error:
        if not deployment.stopped:  # what follows from a failed resource is no news
            raise LabError(f"the program {stack.program} failed: {_described(error, stack.program)}") from error


def _execute(program: Path) -> None:
    runpy.run_path(str(program), run_name="__main__")


def _described(error: Exception, program: Path) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(program))]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
