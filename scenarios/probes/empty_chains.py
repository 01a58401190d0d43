"""# A chain that only schedulers work on

Not part of the curriculum: load for schedulers alone. An EmptyOperator is never sent to a worker: the scheduler that
finds it ready marks it as successful, and then its successor is ready.
"""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import chain, dag


@dag(
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=100,
    tags=["probe"],
    doc_md=__doc__,
)
def probe_empty_chain():
    chain(*(EmptyOperator(task_id=f"step_{number:02}", doc_md="Nothing to do.") for number in range(1, 11)))


probe_empty_chain()
