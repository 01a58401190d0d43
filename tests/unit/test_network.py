"""Whether a cluster keeps NetworkPolicies is found out by a pod that loses what it had."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from labs.errors import LabError
from scenarios import network

API = "10.96.0.5:8080"


class Space:
    """A namespace whose pod's answers are known: before it has a policy, and with one."""

    name = "airflow-t-stranger"

    def __init__(self, before: str, after: str) -> None:
        self.said, self.asked, self.api = {False: before, True: after}, [], self
        self.policies: list[str] = []

    def request(self, method: str, path: str, *_: Any) -> None:
        self.asked.append((method, path))
        (self.policies.append if method == "POST" else self.policies.remove)("nothing")

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        assert list(command[3:]) == [API]
        return subprocess.CompletedProcess(command, 0, json.dumps([self.said[bool(self.policies)]]), "")


@pytest.mark.parametrize(
    ("before", "after", "kept"), [("", "ConnectionRefusedError: [Errno 111]", True), ("", "", False)]
)
def test_a_policy_is_kept_where_a_pod_is_refused_for_it(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str, kept: bool
) -> None:
    space = Space(before, after)

    @contextmanager
    def stranger(_: Any) -> Iterator[Any]:
        yield space, space.run

    monkeypatch.setattr(network, "stranger", stranger)
    monkeypatch.setattr(network, "SOON", 0.2)
    assert network.keeps_policies(space, API) is kept  # type: ignore[arg-type]
    assert [method for method, _ in space.asked] == ["POST", "DELETE"] and not space.policies


def test_a_pod_that_reaches_nobody_anyway_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space("TimeoutError: timed out", "TimeoutError: timed out")

    @contextmanager
    def stranger(_: Any) -> Iterator[Any]:
        yield space, space.run

    monkeypatch.setattr(network, "stranger", stranger)
    with pytest.raises(LabError, match=r"does not reach 10\.96\.0\.5:8080: TimeoutError"):
        network.keeps_policies(space, API)  # type: ignore[arg-type]


def test_what_cannot_be_tried_is_no_refusal() -> None:
    failed = subprocess.CompletedProcess((), 1, "", "sh: python: not found\n")
    with pytest.raises(LabError, match="python: not found"):
        network.answers(lambda _: failed, [API])
