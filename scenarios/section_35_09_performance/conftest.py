"""What the verifiers of the section share: a burst of tasks, on workers as they are and on workers that grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from labs.airflow import Airflow
from labs.runs import Run, TaskInstance
from scenarios.celery import Celery
from scenarios.observing import Observation
from scenarios.pods import Namespace
from scenarios.scaling import Elastic, Look, Meter, elastic_in

if TYPE_CHECKING:
    from labs.lab import Lab

BURST = "35_09_01_executor_scaling"


@dataclass(frozen=True)
class Burst:
    """A run of 35.9.1, and the curve of its queue until the workers were as few as before.

    Attributes:
        shrank: seconds from the end of the run until then.
    """

    run: Observation
    curve: list[Look]
    shrank: float


@pytest.fixture(scope="module")
def elastic(lab: Lab) -> Elastic:
    """What scales the workers of the queue here."""
    return elastic_in(lab)


@pytest.fixture(scope="module")
def meter(lab: Lab, celery: Celery, elastic: Elastic) -> Callable[[], Meter]:
    """`meter()`: a new curve."""
    namespace = Namespace(lab.outputs) if elastic.bounds else None
    return lambda: Meter(celery, namespace)


@pytest.fixture(scope="module")
def burst(
    airflow: Airflow, meter: Callable[[], Meter], timeline: Callable[[Run], list[TaskInstance]]
) -> Callable[..., Burst]:
    """`burst(conf, least, calm)`: a run of the DAG, and what its queue and its workers did."""

    def burst(conf: Mapping[str, Any], least: int = 1, calm: float = 30.0) -> Burst:
        looks = meter()

        def watch(instances: list[TaskInstance]) -> None:
            looks.look(instances)

        looks.wait(least, calm)  # of an autoscaler that has only begun there may be one, where none is wanted
        looks.curve.clear()
        airflow.wait_for_dag(BURST, file=f"{BURST}.py")
        run = airflow.trigger(BURST, conf)
        timeline(run)
        run = airflow.wait(run, 480, watch=watch)
        assert run.state == "success", airflow.explain(run)
        shrank = looks.wait(least, calm)
        return Burst(Observation(airflow, run, airflow.task_instances(run), []), looks.curve, shrank)

    return burst


@pytest.fixture(scope="module")
def elastic_lab(lab: Lab, elastic: Elastic) -> Iterator[Lab]:
    """The lab with workers of the queue that grow."""
    with lab.reconfigured({}, **elastic.shape) as changed:
        yield changed
