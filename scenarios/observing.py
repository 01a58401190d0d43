"""One run of a DAG as seen from outside while it ran: from the API, and from the host that executes its tasks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from airflow_client.client import TaskInstanceApi, TaskInstanceResponse

from labs.airflow import Airflow
from labs.runs import Run, TaskInstance
from labs.waiting import until
from scenarios.containers import init_of, members

if TYPE_CHECKING:
    from scenarios.pods import History


@dataclass(frozen=True)
class Process:
    """One live process of a host.

    Attributes:
        rss: memory that it holds, in KiB.
        cpu: CPU time that it has used, in whole seconds.
        command: its command line, or the title that it gave itself.
    """

    pid: int
    ppid: int
    rss: int
    cpu: int
    command: str


LIST = """
import json, os
page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as cmdline:
            of, command = stat.read().rpartition(")")[2].split(), cmdline.read().replace(chr(0), " ").strip()
    except OSError:
        continue
    rss, cpu = int(of[21]) * page // 1024, (int(of[11]) + int(of[12])) // tick
    if of[0] != "Z":
        print(json.dumps([int(pid), int(of[1]), rss, cpu, command]))
"""
"""Prints the fields of each live `Process`. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""


def process_table(host: Any) -> dict[int, Process]:
    """The live processes of a testinfra host, by pid; what has ended but was not yet waited for is left out.

    Containers have no `ps`: theirs are looked up from this machine, with the pids that they have in there. Pods may be
    on another one: theirs are listed by their own Python.
    """
    kind = host.backend.get_connection_type()
    if kind == "docker":
        return _of_container(members(init_of(host.backend.name)))
    if kind == "kubernetes":
        lines = host.check_output("python3 -ISc %s", LIST).splitlines()
        return {process.pid: process for process in (Process(*json.loads(line)) for line in lines)}
    found = {}
    for line in host.check_output("ps -ww -e -o pid=,ppid=,rss=,cputimes=,args=").splitlines():
        pid, ppid, rss, cpu, command = line.split(None, 4)
        if "<defunct>" not in command:
            found[int(pid)] = Process(int(pid), int(ppid), int(rss), int(cpu), command)
    return found


def _of_container(inside: Mapping[int, psutil.Process]) -> dict[int, Process]:
    numbers, found = {process.pid: number for number, process in inside.items()}, {}
    for number, process in inside.items():
        with contextlib.suppress(psutil.Error), process.oneshot():
            used = process.cpu_times()
            found[number] = Process(
                pid=number,
                ppid=numbers.get(process.ppid(), 0),
                rss=process.memory_info().rss // 1024,
                cpu=int(used.user + used.system),
                command=" ".join(process.cmdline()).strip(),
            )
    return found


@dataclass(frozen=True)
class Look:
    """What was seen at one moment of a run.

    Attributes:
        instances: all task instances of the run, as the API gave them.
        processes: of the executing host, where the observer was asked to look there.
    """

    instances: Sequence[TaskInstance]
    processes: Mapping[int, Process]

    def count(self, state: str, task_id: str = "") -> int:
        """How many instances, of one task or of all, were in that state."""
        return sum(ti.state == state and task_id in ("", ti.task_id) for ti in self.instances)


@dataclass(frozen=True)
class Observation:
    """A run that has ended.

    Attributes:
        instances: its task instances, each with its latest try.
        looks: what was seen while it ran, in order.
        history: of its pods, whose logs go with them; None where tasks run elsewhere.
        unread: why Airflow has no logs of tasks without a pod here; "" where it has.
    """

    airflow: Airflow
    run: Run
    instances: Sequence[TaskInstance]
    looks: Sequence[Look]
    history: History | None = None
    unread: str = ""

    def all(self, *task_ids: str) -> list[TaskInstance]:
        """The instances of these tasks, or of all tasks."""
        return [ti for ti in self.instances if not task_ids or ti.task_id in task_ids]

    def one(self, task_id: str) -> TaskInstance:
        """The only instance of a task."""
        (ti,) = self.all(task_id)
        return ti

    def details(self, task_id: str) -> TaskInstanceResponse:
        """Everything that Airflow records of the only instance of a task, such as its pool slots."""
        ti, api = self.one(task_id), TaskInstanceApi(self.airflow.client)
        return self.airflow.call(api.get_task_instance, dag_id=ti.dag_id, dag_run_id=ti.run_id, task_id=ti.task_id)

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """What the only instance of a task returned."""
        return self.airflow.xcom(self.one(task_id), key)

    def xcoms(self, *task_ids: str) -> list[Any]:
        """What the instances of these tasks returned, in the order of `all`."""
        return [self.airflow.xcom(ti) for ti in self.all(*task_ids)]

    def log(self, task_id: str) -> str:
        """The log of the only instance of a Python task, to its end.

        Some executors deliver the end of a log only after the task has ended. A check that asks for what Airflow does
        not have is not applicable.
        """
        pods = [life for life in self.history.lives(self.run) if life.task_id == task_id] if self.history else []
        if self.unread and not pods:
            pytest.skip(f"the log of a task {self.unread}")

        def probe() -> tuple[str | None, str]:
            text = self.history.said(pods[-1]) if self.history and pods else self.airflow.log(self.one(task_id))
            return (text if "Done. Returned value was:" in text else None), "its end is missing"

        return until(probe, what=f"the log of {task_id}", timeout=30, interval=0.5)
