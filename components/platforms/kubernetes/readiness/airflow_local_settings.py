"""Imported by every service of Airflow as it starts, so it needs nothing of this project.

Tells by a file that the service is up, when its log does: a scheduler, DAG processor or triggerer when the database has
its job, a Celery worker when it takes tasks. Airflow has a health server for the first alone, which takes the job of
the pod before for its own, and `airflow jobs check` takes five seconds of a CPU.
Source: https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html#configuring-local-settings
"""

# mypy: ignore-errors
# because Airflow is not in the environment of the tool

from pathlib import Path

from celery.signals import worker_ready
from sqlalchemy import event
from sqlalchemy.orm import Mapper

__all__ = []

UP = Path("/tmp/.up")  # noqa: S108 - of the pod


@worker_ready.connect
def _takes_tasks(**_):
    UP.touch()


@event.listens_for(Mapper, "after_insert")
def _has_its_job(_mapper, _connection, row):
    if type(row).__name__ == "Job":
        UP.touch()
