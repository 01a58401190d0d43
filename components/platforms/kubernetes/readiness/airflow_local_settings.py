"""Imported by every service of Airflow as it starts, so it needs nothing of this project.

Tells by a port that the service is up, when its log does: a scheduler, DAG processor or triggerer when the database has
its job, a Celery worker when it takes tasks. Airflow has a health server for the first alone, which takes the job of
the pod before for its own, and `airflow jobs check` takes five seconds of a CPU.
Source: https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html#configuring-local-settings
"""

# mypy: ignore-errors
# because Airflow is not in the environment of the tool

import contextlib
import socket
import sys

from sqlalchemy import event
from sqlalchemy.orm import Mapper

__all__ = []

UP = 8797

_listening = []


def _up(**_):
    with contextlib.suppress(OSError):  # somebody of this pod listens already, such as another command in it
        _listening.append(socket.create_server(("", UP)))  # nobody accepts: that a connection is made is the answer


if sys.argv[1:2] == ["celery"]:  # takes a fifth of a second to import
    from celery.signals import worker_ready

    worker_ready.connect(_up)


@event.listens_for(Mapper, "after_insert")
def _has_its_job(_mapper, _connection, row):
    if type(row).__name__ == "Job":
        _up()
