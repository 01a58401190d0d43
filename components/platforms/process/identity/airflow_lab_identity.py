"""Imported by Airflow's own interpreter (`[core] hostname_callable`), so it needs nothing of this project."""

import os


def hostname() -> str:
    """The service's name: on one machine all services would share its host name, as no two containers do."""
    return os.environ["AIRFLOW_LAB_SERVICE"]
