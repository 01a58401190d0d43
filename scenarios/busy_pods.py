"""Runs of DAGs in pods that are looked at, or broken, while they work: their pods and what these said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from labs.airflow import Airflow
from labs.runs import Run, TaskInstance
from labs.waiting import until
from scenarios.pods import History, Life, Namespace
from scenarios.probing import ended


@dataclass(frozen=True)
class BusyPods:
    """A run whose tasks say a certain word when they begin to work.

    Attributes:
        word: part of that line of their logs: they count their executions themselves.
    """

    airflow: Airflow
    namespace: Namespace
    history: History
    run: Run
    word: str

    def wait_for_work(self, task_id: str, count: int = 1) -> list[TaskInstance]:
        """Wait until so many instances of a task run, and their pods say so."""

        def probe() -> tuple[list[TaskInstance] | None, str]:
            instances = [ti for ti in self.airflow.task_instances(self.run) if ti.task_id == task_id]
            busy = [ti for ti in instances if ti.state == "running" and self.word in self.namespace.log(ti.hostname)]
            return (busy if len(busy) >= count else None), ", ".join(f"{ti.label} {ti.state}" for ti in instances)

        return until(
            probe,
            what=f"{count} pods of {task_id} to work",
            timeout=120,
            interval=0.5,
            detail=lambda: self.airflow.explain(self.run),
        )

    def lives(self, task_id: str) -> list[Life]:
        """The pods of a task so far."""
        return [life for life in self.history.lives(self.run) if life.task_id == task_id]

    def executions(self, task_id: str) -> dict[str, int]:
        """Task instance → how often it began to work, by its own word."""
        found: Counter[str] = Counter()
        for life in self.lives(task_id):
            found[life.label] += self.history.said(life).count(self.word)
        return dict(found)

    def account(self, task_id: str) -> list[dict[str, Any]]:
        """Its pods, for the report."""
        said = self.executions(task_id)
        return [{**life.row(), "instance": life.label, "executions": said[life.label]} for life in self.lives(task_id)]


@contextmanager
def busy_pods(
    airflow: Airflow, namespace: Namespace, timeline: Callable[[Run], list[TaskInstance]]
) -> Iterator[Callable[..., BusyPods]]:
    """Gives `start(dag_id, word, conf=None)`, a run of a DAG; on the way out neither it nor its pods go on."""
    with ExitStack() as undo:

        def start(dag_id: str, word: str, conf: Mapping[str, Any] | None = None) -> BusyPods:
            airflow.wait_for_dag(dag_id, file=f"{dag_id}.py")
            history = undo.enter_context(namespace.watched())
            run = airflow.trigger(dag_id, conf)
            undo.callback(gone, run)
            undo.callback(ended, airflow, run)
            timeline(run)
            return BusyPods(airflow, namespace, history, run, word)

        def gone(run: Run) -> None:
            for pod in namespace.pods_of(run):
                namespace.delete("pods", pod["metadata"]["name"], grace=1)

        yield start
