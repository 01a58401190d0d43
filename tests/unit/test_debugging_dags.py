"""What the debugging DAGs make of logs and pods: their functions, without Airflow."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.dag_folder import DAGS

FOLDER = DAGS / "section_35_08_debugging"

KEY = "TaskInstanceKey(dag_id='d', task_id='{task}', run_id='r1', try_number={number}, map_index=-1)"


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`functions(name, **options)`: what is in a DAG's file, read with these Airflow options."""

    def functions(name: str, **options: str) -> dict[str, Any]:
        sdk: Any = ModuleType("airflow.sdk")
        sdk.conf = type("Conf", (), {"get": lambda _self, section, option: options[f"{section}__{option}"]})()
        sdk.Param = lambda *_values, **_options: None
        sdk.dag = lambda **_options: lambda _function: lambda: None
        sdk.task = lambda *_functions, **_options: None
        monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
        monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
        return runpy.run_path(str(FOLDER / f"{name}.py"))

    return functions


def test_the_way_of_a_task_in_a_pod_is_in_the_schedulers_log(
    functions: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def line(second: int, text: str) -> str:
        return f"2026-11-28T05:00:{second:02}.500000Z [info     ] {text}\n"

    def created(second: int, task: str, pod: str, number: int = 1) -> str:
        job = f"Creating kubernetes pod for job is {KEY.format(task=task, number=number)}"
        return line(second, f"{job}, with pod name {pod}, annotations: <omitted> [airflow.providers] loc=x.py:1")

    def heard(second: int, task: str, state: str) -> str:
        key = KEY.format(task=task, number=1)
        return line(second, f"Received executor event with state {state} for task instance {key}")

    (tmp_path / "scheduler.log").write_text(
        line(1, "Setting the following tasks to queued state:")
        + f"\t<TaskInstance: d.quick r1 [scheduled] ti_id={'a' * 36}> (try_number=1)\n"
        + created(2, "quick", "d-quick-x1")
        + created(2, "other", "d-other-x1").replace("'r1'", "'r2'")
        + heard(2, "quick", "queued")
        + line(3, "Event: d-quick-x1 is Running, annotations: <omitted>")
        + line(4, "Event: d-quick-x1 is Running, annotations: <omitted>")
        + line(5, "Event: d-quick-x1 Succeeded, annotations: <omitted>")
        + line(5, "Event: d-other-x1 Succeeded, annotations: <omitted>")
        + heard(6, "quick", "running")  # the next try, already
        + created(7, "quick", "d-quick-x2", number=2)
        + line(8, "Event: d-quick-x2 Failed, annotations: <omitted>")
    )
    monkeypatch.setenv("AIRFLOW_HOME", "/nowhere")
    found = functions("35_08_04_executor_log_analysis")
    (row,) = found["ways"]({"service_logs": str(tmp_path)}, "r1")
    begun = row["queued"]
    assert {step: row[step] - begun for step in found["STEPS"]} == {
        "queued": 0,
        "received": 1,
        "started": 2,
        "ended": 4,
        "heard": 5,
    }
    assert (row["task"], row["worker"], row["message"]) == ("quick", "scheduler", "d-quick-x1")


def pod(task: str, *, run: str = "r1", waiting: str = "", scheduled: bool = True) -> dict[str, Any]:
    """A task's pod as Kubernetes shows it."""
    condition = {"type": "PodScheduled", "status": str(scheduled), "message": "0/3 nodes are available"}
    status: dict[str, Any] = {"phase": "Pending", "conditions": [condition]}
    if waiting:
        status["containerStatuses"] = [{"state": {"waiting": {"reason": waiting, "message": "not found"}}}]
    return {
        "metadata": {"name": f"d-{task}", "annotations": {"dag_id": "d", "run_id": run, "task_id": task}},
        "status": status,
    }


@pytest.mark.parametrize(
    ("there", "cause", "fact"),
    [
        ([], "no_pod", "of work there is no pod"),
        ([pod("other"), pod("work", run="r2")], "no_pod", "of work there is no pod"),
        ([pod("work", scheduled=False)], "no_node", "d-work: 0/3 nodes are available"),
        ([pod("work", waiting="ErrImagePull")], "image", "d-work: ErrImagePull: not found"),
        ([pod("work", waiting="ContainerCreating")], "starting", "d-work is Pending"),
        (OSError("HTTP Error 403: Forbidden"), "kubernetes_api", "HTTP Error 403: Forbidden"),
    ],
)
def test_why_a_pod_does_not_run(
    functions: Callable[..., dict[str, Any]], there: list[dict[str, Any]] | OSError, cause: str, fact: str
) -> None:
    found = functions("35_08_01_debug_task_not_starting", core__executor="CeleryExecutor")

    def pods() -> list[dict[str, Any]]:
        if isinstance(there, OSError):
            raise there
        return there

    held = found["pod_held"]
    held.__globals__["pods"] = pods
    assert held({"dag_id": "d", "dag_run_id": "r1", "task_id": "work"}) == (cause, fact)
    assert cause in found["CAUSES"]


@pytest.mark.parametrize(
    ("executors", "names"),
    [
        ("KubernetesExecutor", {None: "KubernetesExecutor"}),
        (
            "celery:CeleryExecutor,KubernetesExecutor",
            {None: "CeleryExecutor", "celery": "CeleryExecutor", "KubernetesExecutor": "KubernetesExecutor"},
        ),
        (
            "LocalExecutor,edge:a.b.EdgeExecutor",
            {None: "LocalExecutor", "edge": "EdgeExecutor", "a.b.EdgeExecutor": "EdgeExecutor"},
        ),
    ],
)
def test_what_a_task_calls_its_executor(
    functions: Callable[..., dict[str, Any]], executors: str, names: dict[str | None, str]
) -> None:
    found = functions("35_08_01_debug_task_not_starting", core__executor="CeleryExecutor")
    configured = found["configured_executors"]
    configured.__globals__["conf"] = type("Conf", (), {"get": lambda *_: executors})()
    assert names.items() <= configured().items()
