"""The pulumi engine does what the embedded one does, and copes with a CLI that was killed, interrupted or missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness import PROGRAM, Lab, before, node, start, wait_for

from labs.engines import select
from labs.engines.base import PROJECT
from labs.engines.embedded import EmbeddedEngine
from labs.engines.pulumi_cli import PulumiEngine
from labs.engines.pulumi_home import prepare
from labs.engines.pulumi_process import MARK
from labs.errors import ExitCode, LabError, UsageError

with_cli = pytest.mark.skipif(shutil.which("pulumi") is None, reason="needs the Pulumi CLI on the PATH")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "pulumi-home"))
    for variable in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def engine(lab: Lab) -> PulumiEngine:
    return PulumiEngine(lab.world.parent)


GRAPHS = {
    "made": [
        node("platform", "group"),
        node("base", props={"home": "/1", "size": 1}, **{"in": "platform"}),
        node("strict", props={"home": "/1"}, options={"delete_before_replace": True}),
        node("user", uses={"base": "base"}, secrets={"password": "hunter2"}),
        node("moved", uses={"home": "strict"}),
        node("extra", after=["user"]),
    ],
    "same": [],
    "changed": [
        node("platform", "group"),
        node("base", props={"home": "/2", "size": 1}, **{"in": "platform"}),
        node("strict", props={"home": "/2"}, options={"delete_before_replace": True}),
        node("user", uses={"base": "base"}, secrets={"password": "hunter2"}),
        node("moved", uses={"home": "strict"}),
        node("new"),
    ],
}
GRAPHS["same"] = GRAPHS["made"]


@with_cli
def test_both_engines_do_the_same_to_the_same_program(lab: Lab, engine: PulumiEngine, tmp_path: Path) -> None:
    other = Lab(replace(lab.stack, directory=tmp_path / "embedded"), tmp_path / "other-world")
    other.world.mkdir()
    embedded = EmbeddedEngine()
    for name, graph in GRAPHS.items():
        planned = [
            Counter((step.operation, step.type, step.name) for step in one.preview(at.over(*graph)))
            for one, at in ((engine, lab), (embedded, other))
        ]
        assert planned[0] == planned[1], name
        outputs = [one.up(at.over(*graph), at.watch) for one, at in ((engine, lab), (embedded, other))]
        assert outputs[0] == outputs[1], name
        assert Counter(lab.steps()) == Counter(other.steps()), name
        journals = [at.journal() for at in (lab, other)]
        done = [Counter((line["verb"], line["thing"]) for line in journal) for journal in journals]
        assert done[0] == done[1], name
        assert lab.things() == other.things()
        for journal in journals if name == "changed" else ():
            assert before(journal, "create base@_2", "update user@")
            assert before(journal, "update user@", "delete base@_1")
            assert before(journal, "delete moved@strict@_1:9", "delete strict@_1")
            assert before(journal, "delete strict@_1", "create strict@_2")
    assert engine.outputs(lab.stack) == embedded.outputs(other.stack) == outputs[0]
    for one, at in ((engine, lab), (embedded, other)):
        one.down(at.stack, at.watch)
        assert at.things() == {} and not at.stack.directory.exists() and one.outputs(at.stack) is None
    assert Counter(lab.steps()) == Counter(other.steps())
    engine.down(lab.stack, lab.watch)  # of what does not exist is no error


@with_cli
def test_preview_tells_why_and_leaves_no_stack_behind(lab: Lab, engine: PulumiEngine) -> None:
    engine.preview(lab.over(*GRAPHS["made"]))
    states = lab.world.parent / ".lab/pulumi/.pulumi/stacks" / PROJECT
    assert not list(states.glob("*.json")) and lab.things() == {} and not lab.stack.directory.exists()
    engine.up(lab.over(*GRAPHS["made"]), lab.watch)
    changed = json.loads(json.dumps(GRAPHS["changed"]))
    changed[3]["secrets"]["password"] = "hunter3"
    steps = {(step.operation, step.name): step.reason for step in engine.preview(lab.over(*changed))}
    assert steps["replace", "base"] == "home changed"
    assert steps["delete", "base"] == "replaced"
    assert steps["delete", "extra"] == "no longer in the program"
    assert steps["create", "new"] == "new"
    assert "hunter" not in repr(steps)
    engine.down(lab.stack, lab.watch)


@with_cli
@pytest.mark.parametrize(
    ("graph", "config", "error", "words"),
    [
        ([node("a", props={"fails": "lab"})], {}, LabError, "^a found its port taken; free it\nand try again$"),
        ([node("a", props={"fails": "no luck"})], {}, LabError, "^a failed: ValueError: no luck$"),
        ([node("a", props={"size": 1000})], {}, LabError, "size .* too large"),
        ([], {"trouble": "lab"}, UsageError, "^name the lab with --name$"),
        ([], {"trouble": "bug"}, LabError, "^the program failed: ZeroDivisionError: one by none$"),
    ],
)
def test_failures_are_told_in_the_words_of_what_failed(
    lab: Lab, engine: PulumiEngine, graph: list, config: dict[str, str], error: type[LabError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        engine.up(lab.over(*graph, **config), lab.watch)
    assert type(caught.value) is error
    assert "Traceback" not in str(caught.value) and "File" not in str(caught.value)


SLOW = (node("quick"), node("slow", props={"seconds": 3}), node("next", uses={"slow": "slow"}))


@with_cli
def test_ctrl_c_reaches_the_cli_once_and_both_ways_lead_on(lab: Lab, engine: PulumiEngine) -> None:
    process = start("up", lab.over(*SLOW), "pulumi", lab.world.parent)
    wait_for(lambda: lab.things().get("slow@") == "half", "the slow thing to be under way")
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(timeout=20)
    assert process.exitcode == ExitCode.INTERRUPTED
    assert lab.things() == {"quick@": "whole", "slow@": "whole"}, "what was under way ended, nothing else began"
    lab.journal()
    engine.up(lab.over(*SLOW), lab.watch)
    assert lab.done() == ["create next@"]
    engine.down(lab.stack, lab.watch)
    assert lab.things() == {}


def processes_of(lab: Lab) -> list[psutil.Process]:
    """Everything that the CLI of a lab started, and the CLI."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(lab.stack.directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


@with_cli
@pytest.mark.parametrize("verb", ["up", "down"])
@pytest.mark.parametrize("victim", ["the CLI", "its caller", "both"])
def test_a_kill_in_the_middle_blocks_nothing(lab: Lab, engine: PulumiEngine, verb: str, victim: str) -> None:
    graph = [*SLOW, node("gone", props={"seconds": 3, "home": "/1"})]
    process = start("up", lab.over(*graph), "pulumi", lab.world.parent)
    wait_for(lambda: "gone@_1" in lab.things() and "slow@" in lab.things(), "operations to be under way")
    clis = [found for found in processes_of(lab) if Path(found.cmdline()[0]).name == "pulumi"]
    assert len(clis) == 1
    if victim != "its caller":
        clis[0].kill()
    if victim != "the CLI":
        process.kill()
    process.join()
    if verb == "up":
        engine.up(lab.over(*SLOW), lab.watch)
        assert lab.things() == {"quick@": "whole", "slow@": "whole", "next@": "whole"}
    engine.down(lab.stack, lab.watch)
    assert lab.things() == {} and processes_of(lab) == []


@with_cli
def test_a_deletion_that_did_not_end_is_done_again_before_the_thing_is_made_anew(
    lab: Lab, engine: PulumiEngine
) -> None:
    stack = lab.over(node("a", props={"seconds_to_go": 3}))
    engine.up(stack, lab.watch)
    lab.journal()
    process = start("down", stack, "pulumi", lab.world.parent)
    wait_for(Path(f"{lab.world}.journal").exists, "the deletion to begin")
    for found in (*processes_of(lab), process):
        found.kill()
    process.join()
    lab.journal()
    engine.up(stack, lab.watch)
    assert lab.done() == ["delete a@", "create a@"]
    engine.down(stack, lab.watch)


@with_cli
def test_a_live_cli_of_somebody_else_is_not_disturbed(lab: Lab, engine: PulumiEngine) -> None:
    stack = lab.over(node("a"))
    engine.up(stack, lab.watch)
    locks = lab.world.parent / ".lab/pulumi/.pulumi/locks/organization" / PROJECT / stack.name
    locks.mkdir(parents=True, exist_ok=True)
    holder = {
        "pid": os.getpid(),
        "username": "me",
        "hostname": os.uname().nodename,
        "timestamp": "2999-01-01T00:00:00Z",
    }
    (locks / "x.json").write_text(json.dumps(holder))
    with pytest.raises(LabError, match=f"Pulumi is at work on stack test, as process {os.getpid()} of me"):
        engine.up(stack, lab.watch)
    (locks / "x.json").write_text(json.dumps({**holder, "timestamp": "2001-01-01T00:00:00Z"}))
    engine.down(stack, lab.watch)  # that process is not the one that wrote the lock
    assert lab.things() == {}


@with_cli
def test_pulumi_at_the_root_and_the_engine_see_the_same_stack(lab: Lab, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(PROGRAM, root / "stacks")
    repository = Path(__file__).parents[2]
    shutil.copy(repository / "Pulumi.yaml", root)
    (root / ".venv").symlink_to(Path(sys.prefix))
    (root / "stacks/.venv").symlink_to((repository / "stacks/.venv").readlink())
    stack = replace(lab.over(node("a"), node("b", uses={"a": "a"})), program=root / "stacks")
    committed = root / "stacks/Pulumi.test.yaml"
    committed.write_text(json.dumps({"config": dict(stack.config)}))
    content = committed.read_text()
    prepare(root, ["test"])
    engine = PulumiEngine(root)
    assert engine.outputs(stack) is None, "a prepared stack is no lab yet"
    engine.preview(stack)  # and stays prepared

    def pulumi(*arguments: str) -> str:
        environment = {
            "PATH": f"{Path(shutil.which('pulumi') or '').parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PULUMI_CONFIG_PASSPHRASE_FILE": ".lab/pulumi/passphrase",
        }
        command = ["pulumi", *arguments, "--non-interactive"]
        return subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout

    pulumi("up", "--stack", "test", "--yes", "--skip-preview")
    assert lab.things() == {"a@": "whole", "b@": "whole"}
    outputs = json.loads(pulumi("stack", "output", "--stack", "test", "--json", "--show-secrets"))
    assert engine.outputs(stack) == outputs
    lab.journal()
    assert engine.up(stack, lab.watch) == outputs and lab.done() == []
    pulumi("up", "--stack", "test", "--yes", "--skip-preview")
    assert lab.done() == []
    assert committed.read_text() == content, "the CLI wrote into the repository"
    engine.down(stack, lab.watch)
    assert lab.things() == {}
    prepare(root, ["test"])
    pulumi("preview", "--stack", "test")


def test_prepare_is_private_and_follows_the_committed_configuration(tmp_path: Path, monkeypatch) -> None:
    fake = tmp_path / "bin/pulumi"
    fake.parent.mkdir()
    fake.touch(0o755)
    committed = tmp_path / "stacks/Pulumi.local.yaml"
    committed.parent.mkdir()
    committed.write_text("config: {}\n")
    monkeypatch.setenv("PATH", "/nowhere")
    prepare(tmp_path, ["local"])
    assert not (tmp_path / ".lab").exists(), "without a CLI there is nothing to prepare"
    monkeypatch.setenv("PATH", str(fake.parent))
    prepare(tmp_path, ["local"])
    passphrase = tmp_path / ".lab/pulumi/passphrase"
    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600 and len(passphrase.read_text()) > 30
    copy = tmp_path / ".lab/pulumi/config/Pulumi.local.yaml"
    copy.write_text("config: {}\nencryptionsalt: v1:x\n")
    phrase = passphrase.read_text()
    prepare(tmp_path, ["local"])
    assert "encryptionsalt" in copy.read_text() and passphrase.read_text() == phrase
    committed.write_text("config: {airflow-labs:lab: local}\n")
    os.utime(committed, (committed.stat().st_atime, copy.stat().st_mtime + 5))
    prepare(tmp_path, ["local"])
    assert "airflow-labs:lab" in copy.read_text()


def test_without_the_cli_both_ways_are_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="the Pulumi CLI is not on the PATH; install it, or use --engine embedded"):
        select("pulumi", lab.world.parent).up(lab.over(), lab.watch)
    assert select("auto", lab.world.parent).name == select("embedded", lab.world.parent).name == "embedded"
    with pytest.raises(UsageError, match="no engine 'terraform'; use one of auto, embedded, pulumi"):
        select("terraform", lab.world.parent)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PULUMI_CONFIG_PASSPHRASE", " ", "PULUMI_CONFIG_PASSPHRASE is empty"),
        ("PULUMI_CONFIG_PASSPHRASE_FILE", "/dev/null", r"PULUMI_CONFIG_PASSPHRASE_FILE \(/dev/null\) is empty"),
        ("PULUMI_CONFIG_PASSPHRASE_FILE", "/no/file", "which cannot be read .*; name another file, or unset it"),
    ],
)
def test_a_passphrase_that_protects_nothing_is_refused(
    lab: Lab, engine: PulumiEngine, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=words):
        engine.up(lab.over(), lab.watch)
