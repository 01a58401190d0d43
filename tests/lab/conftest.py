"""Labs as a user drives them: through `./lab`, from another process, looked at from outside."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from components.platforms.docker.inspection import remove_all
from labs import processes
from labs.daemon import OWNER, daemon
from labs.errors import LabError
from labs.lab import Lab
from labs.paths import PROJECT_ROOT, lab_directory, run_directory
from labs.results import Results
from labs.verify import report_directory
from labs.waiting import until
from tests.lab.mutations import Mutation

RunLab = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def lab() -> RunLab:
    """`lab("up", "local", …)`: run the command line to its end; `root` runs that of another checkout."""

    def run(*arguments: str, root: Path = PROJECT_ROOT, timeout: float = 2400, **environment: str):  # type: ignore[no-untyped-def]
        return subprocess.run(
            [str(root / "lab"), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "COLUMNS": "200", **environment},
        )

    return run


def remains(name: str) -> dict[str, list[str]]:
    """What is left of a lab on this machine: processes, files and what Docker has; empty lists after `down`."""
    home = run_directory(name)
    found = [
        f"{process.pid} {' '.join(process.cmdline())[:80]}"
        for process in processes.marked(str(home))
        if process.status() != psutil.STATUS_ZOMBIE
    ]
    files = [str(path) for path in (lab_directory(name),) if path.exists()]
    return {"processes": found, "files": files, "docker": [text for text in in_docker().values() if str(home) in text]}


NOTHING: dict[str, list[str]] = {"processes": [], "files": [], "docker": []}


def in_docker() -> dict[str, str]:
    """All containers, networks, volumes and images: what Docker says of each, by its id; empty without a daemon."""
    try:
        with daemon() as client:
            found = [*client.containers.list(all=True, ignore_removed=True), *client.networks.list()]
            named = {each.id: str(each.attrs) for each in [*found, *client.volumes.list()]}
            return named | {each["Id"]: str(each) for each in client.api.images(all=True)}
    except LabError:
        return {}


@pytest.fixture
def docker(name: str) -> Iterator[None]:
    """For a test of a lab in containers: afterwards Docker has what it had, but for what says it is another lab's."""
    try:
        with daemon():
            pass
    except LabError as error:
        pytest.skip(f"NOT RUN: {error}")
    before = in_docker()
    yield
    own = str(run_directory(name))
    more = [text for id_, text in in_docker().items() if id_ not in before]
    assert [text for text in more if own in text or OWNER not in text] == []


def listening(members: list[psutil.Process]) -> set[tuple[str, int]]:
    """The addresses on which processes listen."""
    found = set()
    for process in members:
        with contextlib.suppress(psutil.Error):
            found |= {(c.laddr.ip, c.laddr.port) for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    return found


@contextlib.contextmanager
def running(lab: RunLab, target: str, name: str, *arguments: str) -> Iterator[Lab]:
    """A lab, up; taken down at the end with proof that nothing is left."""
    if remains(name) != NOTHING:
        lab("down", name)
    done = lab("up", target, "--name", name, *arguments)
    assert done.returncode == 0, done.stderr
    listeners = [process for process in processes.marked(str(run_directory(name))) if listening([process])]
    assert listeners
    try:
        yield Lab.of(name)
    finally:
        done = lab("down", name)
    assert done.returncode == 0, done.stderr
    assert remains(name) == NOTHING
    assert all(map(processes.ended, listeners))  # by pid and start, so no other will do


def turns_red(lab: RunLab, up: Lab, mutation: Mutation) -> None:
    """Each scenario that the mutation names fails under it, and says why."""
    with mutation.applied(up):
        named = [part for scenario in mutation.scenarios for part in ("-k", scenario)]
        done = lab("verify", up.name, *named, *(["--all"] if mutation.long else []))
    results = Results.load(report_directory(up.name) / "results.json").results
    for scenario, words in mutation.scenarios.items():
        red = [result for result in results if scenario in result.scenario and result.verdict == "failed"]
        assert red, f"{scenario} did not fail under {mutation.name}:\n{done.stdout[-4000:]}"
        assert any(re.search(words, result.message) for result in red), [result.message for result in red]
    assert done.returncode == 1


@pytest.fixture
def name(request: pytest.FixtureRequest, lab: RunLab) -> Iterator[str]:
    """A name for a lab of this test; whatever the test leaves of it is taken away."""
    name = "t-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:36].strip("-")
    yield name
    if remains(name) != NOTHING:
        lab("down", name)
        if remains(name)["docker"]:
            remove_all(str(run_directory(name)))
        processes.end_all(str(run_directory(name)))
        shutil.rmtree(lab_directory(name), ignore_errors=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Another checkout, as a clone would have it: the files git knows or would add, with this environment."""
    return copy_checkout(tmp_path / "checkout")


def copy_checkout(target: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for file in filter(None, listed.stdout.split("\0")):
        source = PROJECT_ROOT / file
        if source.exists() or source.is_symlink():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / file, follow_symlinks=False)
    return target


def wait_for_line(process: subprocess.Popen[str], text: str, timeout: float = 120) -> None:
    """Read the process's standard error until a line holds `text`."""
    assert process.stderr
    seen: list[str] = []

    def line() -> tuple[bool | None, str]:
        assert process.stderr
        seen.append(process.stderr.readline())
        assert seen[-1], f"it ended without {text!r}:\n{''.join(seen)}"
        return (True if text in seen[-1] else None), seen[-1].strip()

    until(line, what=f"a line with {text!r}", timeout=timeout, interval=0)
