"""What the embedded engine remembers: complete, encrypted, and never silently lost."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, node

from labs.engines.base import PROJECT, Event
from labs.engines.checkpoint import Checkpoint, Snapshot
from labs.engines.deployment import Deployment, Goal
from labs.engines.embedded import EmbeddedEngine
from labs.errors import LabError
from labs.waiting import until

ENGINE = EmbeddedEngine()
SECRET = "hunter2-and-more"


def graph(**props: object) -> list[dict[str, object]]:
    return [
        node("a", secrets={"password": SECRET, "nested": {"token": SECRET}}, props=props),
        node("b", uses={"a": "a"}, options={"additional_secret_outputs": ["address"]}),
    ]


def test_no_secret_is_ever_on_disk_in_plain_not_even_while_operations_are_pending(lab: Lab) -> None:
    pending: list[Any] = []
    seen: list[str] = []

    def watch(event: Event) -> None:
        seen.extend(path.read_text() for path in lab.stack.directory.iterdir())
        if event.step:
            pending.extend(json.loads((lab.stack.directory / "checkpoint.json").read_text())["pending"])

    outputs = ENGINE.up(lab.over(*graph()), watch)
    ENGINE.up(lab.over(*graph(size=2)), watch)
    with pytest.raises(LabError):
        ENGINE.up(lab.over(*graph(size=3, fails="lab")), watch)
    assert len(seen) > 20 and not any(SECRET in text for text in seen)
    assert {(item["operation"], item["resource"]["urn"].split("::")[-1]) for item in pending} >= {
        ("create", "a"),
        ("create", "b"),
        ("update", "a"),
    }
    document = json.loads((lab.stack.directory / "checkpoint.json").read_text())
    made = {item["urn"].split("::")[-1]: item for item in document["resources"]}
    assert outputs["b"] == "b@:2" and "b@:2" not in json.dumps(document), "an output declared secret is"
    assert set(made["a"]["inputs"]["password"]) == {"labs:ciphertext"}
    assert set(made["a"]["outputs"]["password"]) == {"labs:ciphertext"}, "an output of a secret input stays secret"
    assert made["a"]["outputs"]["address"] == "a@:2", "and what is not secret can be read"
    for path in lab.stack.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(lab.stack.directory.stat().st_mode) == 0o700


def damage(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_text(path.read_text()[:-200]), "is damaged .*; restore .* with `mv .*bak .*`"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is damaged .*; restore"),
        (lambda path: path.write_text("[]"), "is damaged .*; restore"),
        (lambda path: damage(path, resources=[{"urn": "x"}]), "is damaged .*; restore"),
        (lambda path: path.unlink(), r"is damaged \(it is missing\); restore"),
        (lambda path: damage(path, version=7), "another version of this project .*; run `down` with that version"),
        (lambda path: damage(path, stack="other"), "belongs to airflow-labs/other, not to airflow-labs/test"),
        (lambda path: path.with_suffix(".key").unlink(), "is missing or is not the key of"),
        (lambda path: path.with_suffix(".key").write_bytes(b"x" * 32), "is missing or is not the key of"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_and_left_as_it_is(lab: Lab, harm, words: str) -> None:
    stack = lab.over(*graph())
    ENGINE.up(stack, lab.watch)
    path = lab.stack.directory / "checkpoint.json"
    harm(path)
    damaged = {file: file.read_bytes() for file in lab.stack.directory.iterdir()}
    lab.journal()
    for command in (
        lambda: ENGINE.up(stack, lab.watch),
        lambda: ENGINE.preview(stack),
        lambda: ENGINE.down(stack, lab.watch),
        lambda: ENGINE.outputs(stack),
    ):
        with pytest.raises(LabError, match=words) as caught:
            command()
        assert "\n" not in str(caught.value) and SECRET not in str(caught.value)
    assert damaged == {file: file.read_bytes() for file in lab.stack.directory.iterdir()}
    assert lab.journal() == []


def test_the_sentence_about_a_damaged_checkpoint_is_the_cure(lab: Lab) -> None:
    stack = lab.over(*graph())
    ENGINE.up(stack, lab.watch)
    path = lab.stack.directory / "checkpoint.json"
    path.write_text("{")
    with pytest.raises(LabError) as caught:
        ENGINE.up(stack, lab.watch)
    cure = str(caught.value).split("`")[1]
    subprocess.run(cure, shell=True, check=True)
    ENGINE.up(stack, lab.watch)
    ENGINE.down(stack, lab.watch)
    assert lab.things() == {}


FULL_DISK = """
import json, resource, sys
from dataclasses import replace
from pathlib import Path
from labs.engines.base import Stack
from labs.engines.embedded import EmbeddedEngine
from labs.errors import LabError
config, program, directory, limit = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    EmbeddedEngine().up(Stack("test", Path(program), config, Path(directory)), lambda event: None)
except LabError as error:
    sys.exit(f"LabError: {error}")
"""


def test_a_full_disk_is_told_in_one_sentence_and_the_last_checkpoint_stays(lab: Lab) -> None:
    small = [node("a")]
    ENGINE.up(lab.over(*small), lab.watch)
    path = lab.stack.directory / "checkpoint.json"
    good = path.read_bytes()
    grown = lab.over(*small, *(node(f"more{index}", props={"text": "x" * 3000}) for index in range(8)))
    arguments = [dict(grown.config), str(grown.program), str(grown.directory), len(good) + 4096]
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, json.dumps(arguments)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert f"LabError: {path} cannot be written (File too large); free some space" in run.stderr
    assert "Traceback" not in run.stderr
    kept = json.loads(path.read_text())
    known = {item["urn"].split("::")[-1] for item in kept["resources"]}
    begun = {item["resource"]["urn"].split("::")[-1] for item in kept["pending"]}
    assert {thing.split("@")[0] for thing in lab.things()} <= known | begun, "whatever was made is known"
    ENGINE.up(grown, lab.watch)
    assert len(lab.things()) == 9
    ENGINE.down(grown, lab.watch)
    assert lab.things() == {}


def test_a_folder_that_cannot_be_made_is_named(lab: Lab) -> None:
    stack = replace(lab.over(node("a")), directory=Path("/proc/lab"))
    with pytest.raises(LabError, match=r"/proc/lab cannot be written \(.*\); make it writable"):
        ENGINE.up(stack, lab.watch)


def test_a_folder_that_cannot_exist_is_named(lab: Lab) -> None:
    lab.stack.directory.write_text("a file, not a folder")
    with pytest.raises(LabError, match=r"state cannot be written \(File exists\); make it writable"):
        ENGINE.up(lab.over(node("a")), lab.watch)
    assert lab.things() == {} and resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_operations_that_end_at_once_are_written_by_one_of_them(lab: Lab) -> None:
    """Each goes on only when what it did is on disk; where that takes its time, for two writes instead of sixteen."""
    writes, begun, go_on = 0, threading.Event(), threading.Event()

    class Slow(Checkpoint):
        def save(self, document: object) -> None:
            nonlocal writes
            writes += 1
            begun.set()
            assert go_on.wait(60)
            super().save(document)

    lost: list[str] = []

    def watch(event: Event) -> None:
        if event.step and event.kind == "done":
            known = Checkpoint(lab.stack).load()
            lost.extend([event.step.name] if known is None or event.step.urn not in known.resources else [])

    deployment = Deployment(Snapshot(), {}, Slow(lab.stack), watch)
    goals = [
        Goal(f"urn:pulumi:{lab.stack.name}::{PROJECT}::labs:test:Thing::thing-{n}", custom=False) for n in range(16)
    ]
    with ThreadPoolExecutor(len(goals)) as pool:
        made = [pool.submit(deployment.register, goal) for goal in goals]
        assert begun.wait(60)
        until(
            lambda: (deployment._wanted == len(goals) or None, f"{deployment._wanted} want to be on disk"),
            what="all to want to be on disk",
            timeout=60,
        )
        go_on.set()
    assert all(each.result() for each in made)
    assert not lost, f"not on disk when it was told as done: {lost}"
    assert writes <= 2
