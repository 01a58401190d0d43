"""What the claims are judged by: the installed Airflow, and one run of eight tasks, both looked at from outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from labs.airflow import Airflow
from labs.runs import Run, TaskInstance
from labs.waiting import until
from scenarios.dispatching import EightTasks, executor_events, look, queued_tasks
from scenarios.faulting import Services
from scenarios.probing import exchange_folder, probe_runs
from scenarios.seeds import EXECUTORS, OPTIONS


@pytest.fixture(scope="session")
def installed(lab: Any, services: Services) -> Mapping[str, Any]:
    """What the installed Airflow says of itself, in the environment of the running scheduler."""
    scheduler = lab.outputs["services"]["scheduler"][0]["name"]
    question = json.dumps({"executors": EXECUTORS, "options": [option[:2] for option in OPTIONS]})
    script = Path(__file__).with_name("installed.py").read_text()
    done = services.run(scheduler, ["python", "-c", script], text=question)
    if done.returncode:
        raise RuntimeError(f"Airflow's interpreter ended with {done.returncode}: {done.stderr[-2000:]}")
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="session")
def eight_tasks(
    lab: Any,
    executor: str,
    airflow: Airflow,
    services: Services,
    probes: frozenset[str],
    service_log: Callable[[str], Callable[[], str]],
    timeline: Callable[[Run], list[TaskInstance]],
) -> EightTasks:
    """Eight tasks on the lab's slots, looked at from outside."""
    if executor != "LocalExecutor":
        pytest.skip(f"needs executor LocalExecutor as the default; lab {lab.name} has {executor}")
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to look at the scheduler's processes")
    slots = int(lab.outputs["options"]["core.parallelism"])
    main = services.incarnation("scheduler").parts[0]
    said = service_log("scheduler")
    with exchange_folder(lab.outputs) as folder, probe_runs(airflow, folder, services.process) as start:
        idle = look(main)
        probe = start("probe_executions")
        executions = probe.wait_for_full_slots(slots)
        full, during = look(main), airflow.task_instances(probe.run)
        parents = {each.task: psutil.Process(probe.process(each).ppid()) for each in executions}
        ancestors = {task: (parent.pid, parent.ppid()) for task, parent in parents.items()}
        probe.release()
        run = airflow.wait(probe.run)
        after = timeline(run)

        def received() -> tuple[Mapping[str, Any] | None, str]:
            found = executor_events(said(), run)
            return (found if len(found) == len(after) else None), f"{len(found)} of {len(after)} events"

        events = until(received, what="the scheduler to receive the executor's events", timeout=30)
    return EightTasks(
        run=run,
        slots=slots,
        scheduler=main.pid,
        idle=idle,
        full=full,
        ended=look(main),
        during=during,
        after=after,
        executions=executions,
        queued=queued_tasks(said(), run),
        ancestors=ancestors,
        events=events,
    )
