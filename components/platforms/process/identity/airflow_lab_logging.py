"""Imported by the API server (`[logging] logging_config_class`), so it needs nothing of this project."""

# mypy: ignore-errors
# because Airflow is not in the environment of the tool

import copy

from airflow.config_templates.airflow_local_settings import (
    DEFAULT_LOGGING_CONFIG,
    DEFAULT_REMOTE_CONN_ID,
    REMOTE_TASK_LOG,
)
from airflow.utils.log.file_task_handler import FileTaskHandler

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG", "SharedFolder"]


class SharedFolder(FileTaskHandler):
    """Reads the log of a running task from the folder that all services of a lab share, and nowhere else.

    Airflow would also ask a log server on the task's host, by the name of a service here, where none runs.
    """

    def _read_from_logs_server(self, ti, worker_log_rel_path):
        return [], []


LOGGING_CONFIG = copy.deepcopy(DEFAULT_LOGGING_CONFIG)
LOGGING_CONFIG["handlers"]["task"]["class"] = f"{__name__}.{SharedFolder.__name__}"
