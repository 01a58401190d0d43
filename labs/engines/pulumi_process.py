"""The Pulumi CLI as a process: found, run, interrupted once, and cleaned up after when it was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psutil
from pulumi import automation
from pulumi.automation.errors import InvalidVersionError, create_command_error

from labs.engines.pulumi_home import is_installed
from labs.errors import LabError, UsageError
from labs.waiting import interruption, until

MARK = "AIRFLOW_LAB_ENGINE"
"""Environment variable of all that the CLI starts: the stack's directory. Finds what outlived a killed CLI."""

GRACE = 120.0
"""Seconds for a CLI whose caller was killed to end the operations that it has under way."""


class Cli(automation.PulumiCommand):
    """Runs the CLI in a session of its own, so that a terminal's Ctrl-C reaches it once: from here.

    Args:
        environment: added to this process's.

    Raises:
        LabError: there is no usable Pulumi CLI.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        if not is_installed():
            raise UsageError("the Pulumi CLI is not on the PATH; install it, or use --engine embedded")
        try:
            super().__init__()
        except (InvalidVersionError, OSError, subprocess.CalledProcessError) as error:
            raise LabError(f"the Pulumi CLI cannot be used: {error}") from error
        self._environment = environment

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> automation.CommandResult:
        """See `pulumi.automation.PulumiCommand.run`."""
        process = subprocess.Popen(
            [self.command, "--non-interactive", *args],
            cwd=cwd,
            env={**os.environ, "PULUMI_AUTOMATION_API": "true", **additional_env, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        assert process.stdout is not None and process.stderr is not None
        stdout, stderr = _Reader(process.stdout, on_output), _Reader(process.stderr, on_error)
        try:
            _wait(process)
        except BaseException:
            # A second Ctrl-C: the CLI, told twice, ends at once.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        result = automation.CommandResult(stdout.text(), stderr.text(), process.returncode)
        if process.returncode != 0:
            raise create_command_error(result)
        return result


def _wait(process: subprocess.Popen[str]) -> None:
    told = False
    while True:
        if interruption.is_set() and not told:
            process.send_signal(signal.SIGINT)
            told = True
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        return


class _Reader(threading.Thread):
    """Drains a pipe."""

    def __init__(self, pipe: IO[str], tell: Callable[[str], Any] | None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._tell, self._lines = pipe, tell, list[str]()
        self.start()

    def run(self) -> None:
        with self._pipe:
            for line in self._pipe:
                self._lines.append(line.rstrip())
                if self._tell:
                    self._tell(self._lines[-1])

    def text(self) -> str:
        self.join()
        return "\n".join(self._lines)


def end_leftovers(directory: Path) -> None:
    """End what a killed command left running for a stack: a CLI in order, then plugins without one.

    Only for who holds the stack's lock: nothing of the stack can be at work then.
    """
    _end(
        _marked(directory, lambda command: Path(command[0]).name == "pulumi"),
        signal.SIGINT,
        "the Pulumi CLI of a command that was killed to finish what it has under way",
    )
    _end(_marked(directory, _is_plugin), signal.SIGKILL, "the plugins of a Pulumi CLI that was killed to end")


def _end(processes: list[psutil.Process], number: signal.Signals, what: str) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)

    def ended() -> tuple[bool | None, str]:
        left = [process.pid for process in processes if _lives(process)]
        return (None if left else True), f"processes {left} are running"

    until(ended, what=what, timeout=GRACE)


def _lives(process: psutil.Process) -> bool:
    """Whether a process can still do something: a zombie, waiting for a parent that does not look, cannot."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_plugin(command: list[str]) -> bool:
    """Whether a command line is a language host's, a program's, or a resource provider's."""
    return "pulumi.dynamic" in command or any(Path(part).name.startswith("pulumi-") for part in command[:2])


def _marked(directory: Path, is_it: Callable[[list[str]], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(directory) and (command := process.cmdline()) and is_it(command):
                found.append(process)
        except psutil.Error:
            continue
    return found


def stale_locks(backend: str, project: str, stack: str) -> bool:
    """Whether a file backend holds locks of the stack, all by processes of this machine that are dead.

    Raises:
        LabError: a live process, or one of another machine, holds a lock.
    """
    if not backend.startswith("file://"):
        return False
    folder = Path(backend.removeprefix("file://")) / ".pulumi" / "locks" / "organization" / project / stack
    locks = list(folder.glob("*.json"))
    for lock in locks:
        try:
            holder = json.loads(lock.read_text())
        except (OSError, ValueError):
            continue  # just released, or never fully written
        if holder["hostname"] != os.uname().nodename or _alive(holder["pid"], holder["timestamp"]):
            raise LabError(
                f"Pulumi is at work on stack {stack}, as process {holder['pid']} of {holder['username']} on "
                f"{holder['hostname']}; wait for it to end, then run the command again"
            )
    return bool(locks)


def _alive(pid: int, since: str) -> bool:
    """Whether the process that wrote a lock at `since` still lives; a later one of the same number does not count."""
    try:
        process = psutil.Process(pid)
        began = float(process.create_time())
    except psutil.NoSuchProcess:
        return False
    written = datetime.fromisoformat(re.sub(r"\.\d+", "", since).replace("Z", "+00:00"))  # Go writes nanoseconds
    return _lives(process) and began <= written.timestamp() + 1
