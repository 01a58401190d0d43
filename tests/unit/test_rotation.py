"""Tasks are kept from starting while a lab gets new secrets, and start again afterwards, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs import rotation
from labs.airflow import AirflowError
from labs.engines.base import PROJECT, Stack, Watcher
from labs.errors import LabError
from labs.lab import Lab


class Airflow:
    """Pools in memory: name to slots and taken slots; tasks end one by one, as often as somebody looks."""

    client = None

    def __init__(self, busy: int = 0, ends: bool = True) -> None:
        self.slots, self.busy, self.ends = {"default_pool": 128, "gpu": 1}, busy, ends

    def call(self, request: Callable[..., Any], **arguments: Any) -> Any:
        if request.__name__ == "patch_pool":
            self.slots[arguments["pool_name"]] = arguments["pool_patch_body"].slots
            return None
        if self.ends and self.busy and set(self.slots.values()) == {0}:
            self.busy -= 1
        pools = [
            SimpleNamespace(name=name, slots=slots, running_slots=self.busy, queued_slots=0)
            for name, slots in self.slots.items()
        ]
        return SimpleNamespace(pools=pools)


def test_pools_give_no_slots_until_all_is_over(tmp_path: Path) -> None:
    airflow, record, said = Airflow(busy=2), tmp_path / "held.json", []
    rotation.hold(airflow, record, said.append)  # type: ignore[arg-type]
    assert airflow.slots == {"default_pool": 0, "gpu": 0} and airflow.busy == 0
    assert said == ["no task starts until the lab has its new secrets; waiting for those that run …"]
    rotation.release(airflow, record)  # type: ignore[arg-type]
    assert airflow.slots == {"default_pool": 128, "gpu": 1} and not record.exists()
    rotation.release(airflow, record)  # type: ignore[arg-type]


def test_an_up_that_was_killed_has_not_lost_the_slots(tmp_path: Path) -> None:
    airflow, record = Airflow(), tmp_path / "held.json"
    record.write_text(json.dumps(airflow.slots))
    airflow.slots = {"default_pool": 0, "gpu": 0}
    rotation.hold(airflow, record, lambda _: None)  # type: ignore[arg-type]
    rotation.release(airflow, record)  # type: ignore[arg-type]
    assert airflow.slots == {"default_pool": 128, "gpu": 1}


def test_what_does_not_end_leaves_the_lab_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "PATIENCE", 0.1)
    airflow, record = Airflow(busy=2, ends=False), tmp_path / "held.json"
    with pytest.raises(LabError, match=r"2 in the pool default_pool.*the lab keeps its secrets: end these tasks"):
        rotation.hold(airflow, record, lambda _: None)  # type: ignore[arg-type]
    assert airflow.slots == {"default_pool": 128, "gpu": 1} and not record.exists()


def test_an_airflow_that_is_not_reached_is_told_with_a_cure(tmp_path: Path) -> None:
    def silent(*_: Any, **__: Any) -> None:
        raise AirflowError("Airflow gave no answer", 0)

    with pytest.raises(LabError, match=r"cannot be kept from starting .*; run `up` without --rotate first"):
        rotation.hold(SimpleNamespace(call=silent, client=None), tmp_path / "held.json", lambda _: None)  # type: ignore[arg-type]


def test_up_holds_tasks_only_when_it_gives_other_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Engine:
        name = "embedded"

        def up(self, stack: Stack, watch: Watcher) -> None:
            order.append("up")

        def outputs(self, stack: Stack) -> dict[str, str]:
            return {"api_url": "http://127.0.0.1:1", "admin_user": "admin", "admin_password": str(len(order))}

    def hold(_airflow: Any, record: Path, _tell: Any) -> None:
        order.append("hold")
        record.write_text("{}")

    monkeypatch.setattr(rotation, "hold", hold)
    monkeypatch.setattr(rotation, "release", lambda _airflow, record: (order.append("release"), record.unlink()))
    (tmp_path / "request.json").write_text(json.dumps({"engine": "embedded", "config": {}}))
    stack = Stack("rotated", tmp_path, {f"{PROJECT}:lab": "local"}, tmp_path)
    lab = Lab(stack, Engine())  # type: ignore[arg-type]
    lab.up()
    assert order == ["up"]
    asked = lab.rotated()
    asked.up()
    assert order == ["up", "hold", "up", "release"]
    asked.up()  # as the lab's record has it now
    assert order[4:] == ["up"]


def test_what_an_interrupted_up_holds_the_next_one_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    airflow = Airflow()
    record = tmp_path / "held-pools.json"
    record.write_text(json.dumps(airflow.slots))
    (tmp_path / "request.json").write_text(json.dumps({"engine": "embedded", "config": {}}))
    airflow.slots = {"default_pool": 0, "gpu": 0}
    engine = SimpleNamespace(name="embedded", up=lambda *_: None)
    monkeypatch.setattr(Lab, "airflow", lambda _self: airflow)
    Lab(Stack("held", tmp_path, {f"{PROJECT}:lab": "local"}, tmp_path), engine).up()  # type: ignore[arg-type]
    assert airflow.slots == {"default_pool": 128, "gpu": 1} and not record.exists()
