"""# Fifty DAGs of ten tasks each

Not part of the curriculum: the load of the exercise in seed 003, "50 DAGs, about 500 tasks", on one server. With
`tasks` = 1 in a run's configuration only the first task of each is executed, and the scheduler skips the others.
"""

from airflow.sdk import Param, dag, task


def one_of_fifty(dag_id):
    @dag(
        dag_id=dag_id,
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        tags=["probe"],
        params={"tasks": Param(10, enum=[1, 10], description="how many of the ten tasks are executed")},
        doc_md=__doc__,
    )
    def ten_tasks():
        @task.short_circuit
        def work_1(params=None):
            """Says whether the other nine are executed too."""
            return params["tasks"] == 10

        @task
        def work():
            """Does nothing: what takes time is Airflow's."""

        work_1() >> [work.override(task_id=f"work_{number}")() for number in range(2, 11)]

    ten_tasks()


for number in range(1, 51):
    one_of_fifty(f"probe_fifty_{number:02}")
