"""# 35.1.2 A portable DAG

A DAG is portable when nothing in it knows the executor: no `executor`, no `queue`, no `executor_config`;
data travels by XCom, never by a local file; only TaskFlow and standard operators.

    extract ──▶ transform ──▶ show ──▶ load

**What to look for**: `load` ends with a checksum of the result. It is the same on LocalExecutor,
CeleryExecutor, KubernetesExecutor and EdgeExecutor; host name and pid in *Details* of the task instances
are not.
"""

import hashlib
import json
import logging

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

log = logging.getLogger("airflow.task")


@dag(
    dag_id="35_01_02_portable_dag",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    doc_md=__doc__,
)
def portable_dag():
    @task
    def extract():
        """Returns the orders: small, plain data, so that XCom can carry it to any other machine."""
        orders = {"1001": 301.27, "1002": 433.21, "1003": 502.22}
        log.info("%s orders leave this task as an XCom, not as a file.", len(orders))
        return orders

    @task
    def transform(orders):
        """Depends on nothing but its argument: the same orders give the same total anywhere."""
        total = round(sum(orders.values()), 2)
        log.info("The total of %s orders is %s.", len(orders), total)
        return {"orders": len(orders), "total": total}

    show = BashOperator(
        task_id="show",
        bash_command='echo "$ORDERS orders, $TOTAL in total"',
        env={
            "ORDERS": "{{ ti.xcom_pull(task_ids='transform')['orders'] }}",
            "TOTAL": "{{ ti.xcom_pull(task_ids='transform')['total'] }}",
        },
        append_env=True,
        doc_md="A standard operator: Airflow fills in the XComs before the command runs.",
    )

    @task
    def load(summary, ti=None):
        """Shows that no task of this DAG names an executor, and fingerprints the result."""
        for each in ti.task.dag.tasks:
            log.info("%-9s executor=%s executor_config=%s", each.task_id, each.executor, each.executor_config)
        specific = [each.task_id for each in ti.task.dag.tasks if each.executor or each.executor_config]
        checksum = hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
        log.info("%s tasks are executor-specific. Result %s, checksum %s", len(specific), summary, checksum)
        return {**summary, "checksum": checksum, "executor_specific": specific}

    summary = transform(extract())
    summary >> show >> load(summary)


portable_dag()
