"""# One file, two workers, and a package that only one of them has

Not part of the curriculum: where the worker `io-1` reads this file, a module is missing, as on a machine that was
set up otherwise.
"""

import os

from airflow.sdk import Param, dag, task

if os.environ.get("AIRFLOW_LAB_SERVICE") == "io-1":
    raise ModuleNotFoundError("No module named 'only_elsewhere'")


@dag(
    dag_id="probe_elsewhere",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["probe"],
    params={"folder": Param("", type="string", description="where an execution leaves a file")},
    doc_md=__doc__,
)
def two_tasks():
    @task
    def has_it():
        """Is sent to a worker that has the package."""

    @task(queue="io_bound")
    def lacks_it():
        """Is sent to the worker that has not."""

    has_it()
    lacks_it()


two_tasks()
