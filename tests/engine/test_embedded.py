"""The embedded engine makes the world match the program: order, parallelism, changes, failures, words."""

from __future__ import annotations

import pulumi
import pytest
from harness import Lab, at_once, before, node
from things import Registered

from labs.engines.base import Event
from labs.engines.embedded import EmbeddedEngine
from labs.errors import LabError, UsageError

ENGINE = EmbeddedEngine({"docker:*": Registered(), "kubernetes:*": Registered()})

THREE_PROVIDERS = (
    node("platform", "group"),
    node("network", "docker:index:Network", **{"in": "platform"}),
    node("namespace", "kubernetes:core/v1:Namespace", **{"in": "platform"}),
    node("database", "docker:index:Container", **{"in": "platform"}, uses={"network": "network"}),
    node("scheduler", uses={"database": "database"}, secrets={"password": "hunter2"}),
    node("worker", "kubernetes:apps/v1:Deployment", uses={"space": "namespace"}, after=["scheduler"]),
)


def test_one_program_over_three_providers_is_applied_in_order_and_outputs_come_back(lab: Lab) -> None:
    outputs = ENGINE.up(lab.over(*THREE_PROVIDERS), lab.watch)
    journal = lab.journal()
    assert before(journal, "create network@", "create database@")
    assert before(journal, "create database@", "create scheduler@")
    assert before(journal, "create scheduler@", "create worker@")
    assert before(journal, "create namespace@", "create worker@")
    assert set(lab.things().values()) == {"whole"}
    assert outputs["worker"] == "worker@:7" and outputs["worker length"] == 7
    assert outputs["password"] == {"deep": ["hunter2", 7, 0.5]}, "secrets come in plain, whole numbers as integers"
    assert outputs["folder"] == str(lab.stack.program)
    assert ENGINE.outputs(lab.stack) == outputs
    names = {name for _, name in lab.steps()}
    assert names == {"airflow-labs-test", *(item["name"] for item in THREE_PROVIDERS)}


def test_independent_resources_are_made_at_the_same_time_however_few_cores(lab: Lab) -> None:
    many = [node(f"n{index}", props={"seconds": 0.3}) for index in range(24)]
    ENGINE.up(lab.over(*many), lab.watch)
    assert at_once(lab.journal()) == 24


def test_a_second_up_touches_nothing(lab: Lab) -> None:
    stack = lab.over(*THREE_PROVIDERS)
    ENGINE.up(stack, lab.watch)
    lab.journal()
    lab.steps()
    checkpoint = lab.stack.directory / "checkpoint.json"
    before_it = checkpoint.read_bytes()
    ENGINE.up(stack, lab.watch)
    assert lab.journal() == [] and lab.steps() == []
    assert checkpoint.read_bytes() == before_it


def test_a_change_is_made_in_place_when_the_provider_can(lab: Lab) -> None:
    ENGINE.up(lab.over(node("a", props={"size": 1}), node("b", uses={"a": "a"})), lab.watch)
    lab.journal()
    lab.steps()
    ENGINE.up(lab.over(node("a", props={"size": 2}), node("b", uses={"a": "a"})), lab.watch)
    assert lab.done() == ["update a@"] and lab.steps() == [("update", "a")]
    assert lab.things() == {"a@": "whole 2", "b@": "whole"}


def test_a_replacement_is_made_before_the_old_one_goes_and_after_its_users_follow(lab: Lab) -> None:
    ENGINE.up(lab.over(node("a", props={"home": "/1"}), node("b", uses={"a": "a"})), lab.watch)
    lab.journal()
    lab.steps()
    ENGINE.up(lab.over(node("a", props={"home": "/2"}), node("b", uses={"a": "a"})), lab.watch)
    assert lab.done() == ["create a@_2", "update b@", "delete a@_1"]
    assert lab.steps() == [("replace", "a"), ("update", "b"), ("delete", "a")]


def test_delete_before_replace_takes_along_the_users_that_must_be_replaced_too(lab: Lab) -> None:
    def graph(home: str) -> tuple[dict[str, object], ...]:
        return (
            node("root", props={"home": home}, options={"delete_before_replace": True}),
            node("replaced", uses={"home": "root"}),
            node("updated", uses={"size_of": "root"}),
            node("after", after=["root"]),
        )

    ENGINE.up(lab.over(*graph("/1")), lab.watch)
    lab.journal()
    ENGINE.up(lab.over(*graph("/2")), lab.watch)
    journal = lab.journal()
    assert before(journal, "delete replaced@root@_1:7", "delete root@_1")
    assert before(journal, "delete root@_1", "create root@_2")
    assert before(journal, "create root@_2", "create replaced@root@_2:7")
    verbs = {line["thing"]: line["verb"] for line in journal}
    assert verbs["updated@"] == "update" and "after@" not in verbs


def test_what_left_the_program_is_deleted_in_reverse_order_and_in_parallel(lab: Lab) -> None:
    leaving = [node(f"leaf{index}", uses={"base": "base"}, props={"seconds_to_go": 0.2}) for index in range(8)]
    ENGINE.up(lab.over(node("stays"), node("base"), *leaving), lab.watch)
    lab.journal()
    lab.steps()
    ENGINE.up(lab.over(node("stays")), lab.watch)
    journal = lab.journal()
    assert at_once(journal) == 8
    assert all(before(journal, f"delete leaf{index}@", "delete base@") for index in range(8))
    assert lab.things() == {"stays@": "whole"}


def test_down_needs_no_program_and_leaves_nothing(lab: Lab) -> None:
    stack = lab.over(*THREE_PROVIDERS)
    ENGINE.up(stack, lab.watch)
    lab.journal()
    gone = Lab(lab.stack, lab.world).stack
    ENGINE.down(type(gone)(gone.name, lab.world / "no such program", {}, gone.directory), lab.watch)
    journal = lab.journal()
    assert before(journal, "delete worker@", "delete scheduler@")
    assert before(journal, "delete scheduler@", "delete database@")
    assert before(journal, "delete database@", "delete network@")
    assert lab.things() == {}
    assert not lab.stack.directory.exists()
    assert ENGINE.outputs(lab.stack) is None
    ENGINE.down(stack, lab.watch)  # of what does not exist is no error


def test_ignored_changes_are_not_changes(lab: Lab) -> None:
    deep = {"nested": {"a": [1, 2], "b": 3}}
    options = {"ignore_changes": ["size", "nested.a[0]", 'nested["b"]']}
    ENGINE.up(lab.over(node("a", props={"size": 1, **deep}, options=options)), lab.watch)
    lab.journal()
    changed = {"size": 2, "nested": {"a": [9, 2], "b": 4}}
    ENGINE.up(lab.over(node("a", props=changed, options=options)), lab.watch)
    assert lab.done() == []
    ENGINE.up(lab.over(node("a", props={"size": 2, "nested": {"a": [1, 5], "b": 3}}, options=options)), lab.watch)
    assert lab.done() == ["update a@"]


def test_what_is_protected_is_neither_deleted_nor_replaced(lab: Lab) -> None:
    keep = {"protect": True}
    ENGINE.up(lab.over(node("a", props={"home": "/1"}, options=keep), node("b")), lab.watch)
    lab.journal()
    with pytest.raises(LabError, match="a is protected"):
        ENGINE.up(lab.over(node("a", props={"home": "/2"}, options=keep), node("b")), lab.watch)
    with pytest.raises(LabError, match="a is protected"):
        ENGINE.up(lab.over(node("b")), lab.watch)
    with pytest.raises(LabError, match="a is protected"):
        ENGINE.down(lab.stack, lab.watch)
    assert lab.done() == []
    ENGINE.up(lab.over(node("a", props={"home": "/2"}), node("b")), lab.watch)
    assert lab.things() == {"a@_2": "whole", "b@": "whole"}


def test_what_is_retained_outlives_its_resource(lab: Lab) -> None:
    ENGINE.up(lab.over(node("a", options={"retain_on_delete": True})), lab.watch)
    ENGINE.down(lab.stack, lab.watch)
    assert lab.things() == {"a@": "whole"}


def test_a_failure_lets_siblings_end_stops_what_depends_and_keeps_the_provider_s_words(lab: Lab) -> None:
    def graph(**fails: str) -> tuple[dict[str, object], ...]:
        return (
            node("a", props={"seconds": 0.1, **fails}),
            node("sibling", props={"seconds": 0.5}),
            node("child", uses={"a": "a"}),
            node("later", uses={"sibling": "sibling"}),
        )

    with pytest.raises(LabError) as caught:
        ENGINE.up(lab.over(*graph(fails="lab")), lab.watch)
    assert str(caught.value) == "a found its port taken; free it\nand try again"
    assert lab.things() == {"sibling@": "whole"}
    assert ("create", "sibling") in lab.steps()
    lab.journal()
    ENGINE.up(lab.over(*graph()), lab.watch)
    assert sorted(lab.done()) == ["create a@", "create child@", "create later@"]


def test_several_failures_are_told_together_and_foreign_ones_name_their_resource(lab: Lab) -> None:
    graph = [node("a", props={"fails": "no luck", "seconds": 0.1}), node("b", props={"fails": "lab", "seconds": 0.3})]
    with pytest.raises(LabError, match=r"^a failed: ValueError: no luck; also failed: b$"):
        ENGINE.up(lab.over(*graph), lab.watch)
    failed = [event.step.name for event in lab.events if event.kind == "failed" and event.step]
    assert failed == ["a", "b"]


def test_a_failed_deletion_keeps_what_it_needs_and_is_done_again(lab: Lab) -> None:
    stuck = node("stuck", props={"fails_to_go": "lab"}, uses={"base": "base"})
    ENGINE.up(lab.over(node("base"), stuck, node("free")), lab.watch)
    with pytest.raises(LabError, match="stuck found its port taken"):
        ENGINE.down(lab.stack, lab.watch)
    assert set(lab.things()) == {"base@", "stuck@"}
    lab.journal()
    with pytest.raises(LabError, match="stuck found its port taken"):
        ENGINE.down(lab.stack, lab.watch)
    assert lab.done() == ["delete stuck@"]


@pytest.mark.parametrize(
    ("graph", "config", "error", "words"),
    [
        ([node("a", "aws:s3:Bucket")], {}, UsageError, "aws:s3:Bucket; install the Pulumi CLI, .* aws provider"),
        ([node("a", "pulumi:providers:aws")], {}, UsageError, "pulumi:providers:aws; .* the aws provider"),
        ([node("a", options={"aliases": ["z"]})], {}, UsageError, "does not know the options aliases of a,"),
        ([node("a", props={"size": 1000})], {}, UsageError, "a was given inputs .*: size: too large"),
        ([node("a"), node("a")], {}, UsageError, "makes urn:pulumi:test::.*::a twice"),
        ([], {"trouble": "invoke"}, UsageError, "does not know `Invoke`, .*; install the Pulumi CLI"),
        ([], {"trouble": "get"}, UsageError, "does not know `ReadResource`, .*; install the Pulumi CLI"),
        ([], {"trouble": "transform"}, UsageError, "does not know `RegisterStackTransform`, .*; install"),
        ([], {"trouble": "lab"}, UsageError, "^name the lab with --name$"),
        ([], {"trouble": "bug"}, LabError, r"failed: ZeroDivisionError: one by none \(.*__main__.py, line \d+\)$"),
    ],
)
def test_a_program_that_cannot_be_applied_is_refused_in_one_sentence(
    lab: Lab, graph: list[dict[str, object]], config: dict[str, str], error: type[LabError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        ENGINE.up(lab.over(*graph, **config), lab.watch)
    assert "\n" not in str(caught.value)
    assert lab.stack.directory.exists() == bool(lab.things()), "nothing is left of a command that made nothing"


def test_an_import_error_in_the_program_names_the_module(lab: Lab) -> None:
    program = lab.world.parent / "program"
    program.mkdir()
    (program / "__main__.py").write_text("import no_such_module\n")
    stack = type(lab.stack)("test", program, {}, lab.stack.directory)
    with pytest.raises(LabError, match=r"No module named 'no_such_module' \(.*__main__.py, line 1\)"):
        ENGINE.up(stack, lab.watch)


def test_preview_says_what_and_why_without_doing_it_and_without_secrets(lab: Lab) -> None:
    graph = [
        node("a", props={"home": "/1"}),
        node("b", uses={"a": "a"}, secrets={"password": "hunter2"}),
        node("c", props={"size": 1}),
        node("d"),
    ]
    new = ENGINE.preview(lab.over(*graph))
    assert {(step.operation, step.name, step.reason) for step in new} == {
        ("create", name, "new") for name in ("airflow-labs-test", "a", "b", "c", "d")
    }
    assert not lab.stack.directory.exists() and lab.things() == {}

    ENGINE.up(lab.over(*graph), lab.watch)
    files = {path: path.read_bytes() for path in lab.stack.directory.iterdir()}
    lab.journal()
    graph[0]["props"] = {"home": "/2"}
    graph[1]["secrets"] = {"password": "hunter3"}
    del graph[3]
    steps = ENGINE.preview(lab.over(*graph))
    planned = {(step.operation, step.name, step.reason) for step in steps if step.operation != "same"}
    assert planned == {
        ("replace", "a", "home changed"),
        ("delete", "a", "replaced"),
        ("update", "b", "a, password changed"),
        ("delete", "d", "no longer in the program"),
    }
    assert "hunter" not in repr(steps)
    assert lab.journal() == [] and files == {path: path.read_bytes() for path in lab.stack.directory.iterdir()}


def test_the_program_s_messages_reach_the_watcher(lab: Lab) -> None:
    ENGINE.up(lab.over(), lab.watch)
    assert Event("message", message="the program speaks") in lab.events


def test_a_run_leaves_no_trace_in_the_process(lab: Lab) -> None:
    ENGINE.up(lab.over(node("a")), lab.watch)
    assert pulumi.Config().get("graph") is None
    assert pulumi.runtime.settings.get_monitor() is None
