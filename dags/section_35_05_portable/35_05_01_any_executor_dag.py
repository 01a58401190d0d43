"""# 35.5.1 A DAG for any executor

Four habits, one task each:

| habit | because |
| --- | --- |
| `scratch`: temporary files stay inside one task | the next task may run on another machine |
| `total`: data goes by XCom | the one channel that all executors have |
| `announce`: standard operators | they come with Airflow, on every worker |
| `audit`: no `executor`, `queue`, `executor_config` unless needed | the deployment can then choose |

**What to look for**: `scratch` passes on its data *and* the path where it worked; `total` uses the data and
finds that the path is gone. Then run this DAG in another lab, without changing a character.
"""

import csv
import logging
import tempfile
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")


@dag(
    dag_id="35_05_01_any_executor_dag",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "beginner", "success"],
    doc_md=__doc__,
)
def any_executor_dag():
    @task(retries=2)
    def scratch():
        """Works in a directory of its own and returns the data, not the file. May be retried anywhere."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "readings.csv"
            file.write_text("sensor,value\nnorth,3\nsouth,4\nwest,5\n")
            with file.open(newline="") as lines:
                readings = {row["sensor"]: int(row["value"]) for row in csv.DictReader(lines)}
        log.info("Worked in %s, removed it, and return the data: %s", folder, readings)
        return {"readings": readings, "folder": folder}

    @task
    def total(handed_over):
        """Uses what came by XCom. The path came too, and is worth nothing here."""
        readings, folder = handed_over["readings"], Path(handed_over["folder"])
        log.info("%s exists here: %s. A path is not data.", folder, folder.exists())
        log.info("The total of %s readings is %s.", len(readings), sum(readings.values()))
        return {"readings": len(readings), "total": sum(readings.values()), "folder_exists": folder.exists()}

    announce = BashOperator(
        task_id="announce",
        bash_command='echo "total: $TOTAL"',
        env={"TOTAL": "{{ ti.xcom_pull(task_ids='total')['total'] }}"},
        append_env=True,
        doc_md="A standard operator. Its last line of output becomes its XCom.",
    )

    @task
    def audit(ti=None):
        """Looks at every task of this DAG for something that only one executor understands."""
        default_queue = conf.get("operators", "default_queue")
        specific = []
        for each in ti.task.dag.tasks:
            choices = {
                "executor": each.executor,
                "executor_config": each.executor_config,
                "queue": each.queue,
            }
            log.info("%-9s %s", each.task_id, choices)
            if each.executor or each.executor_config or each.queue != default_queue:
                specific.append(each.task_id)
        log.info("Tasks tied to an executor: %s", specific or "none")
        return {"tasks": sorted(ti.task.dag.task_ids), "executor_specific": specific}

    total(scratch()) >> announce >> audit()


any_executor_dag()
