"""The pulumi engine: applies a stack with the Pulumi CLI, through Pulumi's Automation API."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pulumi import automation

from labs.engines.base import GOING_DOWN, PROJECT, ROOT_TYPE, UNWANTED, Stack, Step, Watcher
from labs.engines.lock import stack_lock
from labs.engines.providers import DynamicProvider
from labs.engines.pulumi_events import Watching
from labs.engines.pulumi_home import home, passphrase
from labs.engines.pulumi_process import MARK, Cli, end_leftovers, stale_locks
from labs.engines.pulumi_state import State, half_done, plain, properties, without
from labs.engines.workplace import absolute, as_program
from labs.errors import Interrupted, LabError
from labs.waiting import interruptible, interruption


class PulumiEngine:
    """See `labs.engines.base.Engine`.

    The CLI sees a project generated in the stack's directory, so no command touches the repository. It has the
    repository's project and stack names and, by default, its backend: `pulumi` at the root sees the same stack.

    Args:
        project_root: the state lives in its `.lab/pulumi`, unless PULUMI_BACKEND_URL names another backend.
    """

    name = "pulumi"

    def __init__(self, project_root: Path) -> None:
        self._root = project_root

    def up(self, stack: Stack, watch: Watcher) -> Mapping[str, Any]:
        with self._locked(stack, "up", watch) as session:
            session.settle()
            result = session.run(lambda found: found.up(on_event=session.watching, suppress_progress=True))
        return {key: output.value for key, output in result.outputs.items()}

    def preview(self, stack: Stack) -> list[Step]:
        with self._unlocked(stack) as session, interruptible():
            known = session.state() is not None
            try:
                session.run(lambda found: found.preview(on_event=session.watching, suppress_progress=True))
            finally:
                if not known:
                    with suppress(LabError):  # an `up` at the same time has made it and keeps it
                        session.forget()
        return session.watching.steps

    def down(self, stack: Stack, watch: Watcher) -> None:
        with self._locked(stack, "down", watch) as session:
            if session.state() is not None:
                session.settle()
                session.run(lambda found: found.destroy(on_event=session.watching, suppress_progress=True))
                session.forget()

    def outputs(self, stack: Stack) -> Mapping[str, Any] | None:
        with self._unlocked(stack) as session:
            state = session.state(secrets=True)
        for resource in (state or {}).get("resources", ()):
            if resource["type"] == ROOT_TYPE:
                return {key: plain(value) for key, value in resource.get("outputs", {}).items()}
        return None

    @contextmanager
    def _unlocked(self, stack: Stack) -> Iterator[_Session]:
        """For what changes nothing and leaves nothing in the stack's directory."""
        with tempfile.TemporaryDirectory(prefix="airflow-lab-") as folder:
            yield _Session(absolute(stack), Path(folder), self._root, lambda _: None)

    @contextmanager
    def _locked(self, stack: Stack, verb: str, watch: Watcher) -> Iterator[_Session]:
        stack = absolute(stack)
        folder = stack.directory / "pulumi"
        with stack_lock(stack, verb), interruptible():
            try:
                yield _Session(stack, folder, self._root, watch, GOING_DOWN if verb == "down" else UNWANTED)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


class _Session:
    """The Pulumi CLI at work on one stack.

    Args:
        folder: where to generate the project.
        gone: why resources are deleted that nothing replaces.
    """

    def __init__(self, stack: Stack, folder: Path, project_root: Path, watch: Watcher, gone: str = UNWANTED) -> None:
        self.watching = Watching(watch, gone)
        self._stack = stack
        self._folder = folder
        self._backend = os.environ.get("PULUMI_BACKEND_URL") or f"file://{home(project_root)}"
        environment = {
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_BACKEND_URL": self._backend,
            MARK: str(stack.directory),
            **passphrase(project_root),
        }
        self._cli = Cli(environment)
        self._generate()
        self._workspace = automation.LocalWorkspace(
            work_dir=str(folder), env_vars=environment, pulumi_command=self._cli
        )

    def _generate(self) -> None:
        """Write the project and its configuration."""
        project = {
            "name": PROJECT,
            "main": str(self._stack.program if self._stack.program.is_dir() else self._folder),
            # The pip toolchain runs the environment's own Python: no uv or poetry on the PATH.
            "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
        }
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / "Pulumi.yaml").write_text(json.dumps(project))
        config = self._folder / f"Pulumi.{self._stack.name}.yaml"
        config.write_text(json.dumps({"config": dict(self._stack.config)}))

    def run(self, operation: Callable[[automation.Stack], Any]) -> Any:
        """Run an operation on the stack, which is made when it does not exist.

        Raises:
            LabError: in the words of the provider or program that failed.
        """
        try:
            return operation(automation.Stack.create_or_select(self._stack.name, self._workspace))
        except automation.CommandError as error:
            if interruption.is_set():
                raise Interrupted(
                    f"interrupted; Pulumi remembers what exists of stack {self._stack.name}: run `up` to go on or "
                    "`down` to remove it"
                ) from error
            raise self.watching.failure(error) from error

    def state(self, *, secrets: bool = False) -> dict[str, Any] | None:
        """What Pulumi remembers of the stack; None when there is no such stack."""
        try:
            arguments = ["stack", "export", "--stack", self._stack.name]
            found = self._pulumi(*arguments, *(["--show-secrets"] if secrets else []))
        except automation.StackNotFoundError:
            return None
        return json.loads(found)["deployment"] or {}  # of a stack that was only made

    def forget(self) -> None:
        """Remove the stack, which must be empty."""
        self._pulumi("stack", "rm", "--yes", "--stack", self._stack.name)

    def settle(self) -> None:
        """Clear away what a killed command left: its processes, its lock, and what it had half done.

        Only dynamic providers can be asked to finish a deletion or to delete a half-made thing: what other providers
        have pending is for `pulumi refresh`, as the CLI will say.
        """
        end_leftovers(self._stack.directory)
        if stale_locks(self._backend, PROJECT, self._stack.name):
            self._pulumi("cancel", "--yes", "--stack", self._stack.name)
        state = self.state()
        if state is None or not half_done(state):
            return
        revealed = half_done(self.state(secrets=True) or {})
        provider = DynamicProvider(self._stack.config)
        with as_program(self._stack.program):
            for item in revealed:
                provider.delete(item["urn"], item.get("id", ""), properties(item))
        self._import(without(state, revealed))

    def _import(self, state: State) -> None:
        file = self._folder / "state.json"  # as it was exported: its secrets are encrypted
        file.write_text(json.dumps({"version": 3, "deployment": state}))
        self._pulumi("stack", "import", "--file", str(file), "--stack", self._stack.name)

    def _pulumi(self, *arguments: str) -> str:
        try:
            return self._cli.run([*arguments], str(self._folder), {}).stdout
        except automation.StackNotFoundError:
            raise
        except automation.CommandError as error:
            raise self.watching.failure(error) from error
