"""Providers that make files in a folder, the world, and write down what they do: when it began, when it ended.

A thing is `half` while it is being made and `whole` after, so that a test sees what an engine left.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from labs.engines.providers import Difference
from labs.errors import Interrupted, LabError
from labs.waiting import interruption


def thing(values):
    """The file of a resource; a new home is another file."""
    return Path(values["world"]) / f"{values['name']}@{values.get('home', '')}".replace("/", "_")


@contextmanager
def recorded(verb, values):
    journal = Path(f"{values['world']}.journal")

    def write(edge):
        line = json.dumps({"verb": verb, "edge": edge, "thing": thing(values).name, "at": time.time()})
        with journal.open("a") as file:
            file.write(line + "\n")

    write("begin")
    yield
    write("end")


def work(values, going=""):
    """What takes time and may fail or be interrupted."""
    seconds, fails = values.get(f"seconds{going}", 0), values.get(f"fails{going}")
    if values.get("deaf"):
        time.sleep(seconds)
    elif interruption.wait(seconds):
        raise Interrupted("interrupted at work")
    if fails == "lab":
        raise LabError(f"{values['name']} found its port taken; free it\nand try again")
    if fails:
        raise ValueError(fails)


def make(values):
    path = thing(values)
    path.write_text("half")
    try:
        work(values)
    except Exception:
        path.unlink()
        raise
    path.write_text("whole")
    if values.get("size"):
        path.write_text(f"whole {values['size']:.0f}")
    return {**values, "address": f"{path.name}:{len(path.name)}", "length": len(path.name)}


def change(olds, news):
    work(news)
    thing(news).write_text(f"whole {news.get('size', 0):.0f}")
    return {**olds, **news}


def remove(values):
    work(values, "_to_go")
    with suppress(FileNotFoundError):
        thing(values).unlink()


def compare(olds, news):
    changed = [key for key in news if key != "__provider" and news[key] != olds.get(key)]
    return changed, [key for key in changed if key == "home"]


class Recording(ResourceProvider):
    """As a dynamic provider."""

    def check(self, _olds, news):
        failures = [CheckFailure("size", "too large")] if news.get("size") == 1000 else []
        return CheckResult(news, failures)

    def diff(self, _id, _olds, _news):
        changed, replaces = compare(_olds, _news)
        return DiffResult(changes=bool(changed), replaces=replaces)

    def create(self, props):
        with recorded("create", props):
            return CreateResult(thing(props).name, make(props))

    def update(self, _id, _olds, _news):
        with recorded("update", _news):
            return UpdateResult(change(_olds, _news))

    def delete(self, _id, _props):
        with recorded("delete", _props):
            remove(_props)


class Registered:
    """As a provider that the embedded engine has in its registry."""

    def check(self, urn, olds, news):
        return news

    def diff(self, urn, id, olds, news):
        changed, replaces = compare(olds, news)
        return Difference(bool(changed), tuple(replaces))

    def create(self, urn, news):
        with recorded("create", news):
            return thing(news).name, make(news)

    def update(self, urn, id, olds, news):
        with recorded("update", news):
            return change(olds, news)

    def delete(self, urn, id, outputs):
        with recorded("delete", outputs):
            remove(outputs)


class Thing(Resource, module="test", name="Thing"):
    """A resource of the dynamic provider."""

    address: pulumi.Output[str]
    length: pulumi.Output[int]

    def __init__(self, label, props, opts=None):
        super().__init__(Recording(), label, {"address": None, "length": None, **props}, opts)


class Foreign(pulumi.CustomResource):
    """A resource of another package, such as docker's."""

    address: pulumi.Output[str]
    length: pulumi.Output[int]

    def __init__(self, type_, label, props, opts=None):
        super().__init__(type_, label, {"address": None, "length": None, **props}, opts)


class Group(pulumi.ComponentResource):
    """A component that does nothing but hold others."""

    def __init__(self, label, opts=None):
        super().__init__("test:index:Group", label, None, opts)
