"""# 35.5.4 Logical queues

Tasks name a *logical* queue, what kind of work they are: `light`, `heavy`, `io`. One table maps it to the
*physical* queue of the executor in use, so that moving to another deployment changes the table and no task.

| executor | what a queue does |
| --- | --- |
| CeleryExecutor | only workers started with `-q <queue>` take the task |
| EdgeExecutor | the same |
| KubernetesExecutor | nothing: every task has a pod of its own |
| LocalExecutor | nothing |

The Variable `queue_map` overrides the table, executor by executor; without it, the table below applies:

    airflow variables set queue_map '{"CeleryExecutor": {"heavy": "big_machines"}}'

`queue` cannot be a template, so the Variable is read each time the file is parsed; a change applies after
the next parsing. That costs one lookup per parsing: keep it to one Variable. A task in a
queue that no worker serves stays `queued` until `[scheduler] task_queued_timeout` gives it up.

**What to look for**: the log of `report`, and *Queue* in the details of each task instance.
"""

import logging
import socket

from airflow.sdk import Variable, conf, dag, task

log = logging.getLogger("airflow.task")

QUEUES = {
    "CeleryExecutor": {"heavy": "heavy_compute", "io": "io_bound"},
}


def default_executor():
    """The class name of the first executor in `[core] executor`: it runs the tasks that name none."""
    return conf.get("core", "executor").split(",")[0].strip().split(":")[-1].split(".")[-1]


def physical_queues():
    """The executor's part of the table; a kind of work that it does not name goes to the default queue."""
    table = QUEUES | Variable.get("queue_map", default={}, deserialize_json=True)
    return table.get(default_executor(), {})


@dag(
    dag_id="35_05_04_queue_abstraction",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    doc_md=__doc__,
)
def queue_abstraction():
    @task
    def work(logical, ti=None):
        """Knows what kind of work it is; where that runs is the table's business."""
        route = {"logical": logical, "physical": ti.queue, "hostname": socket.gethostname()}
        log.info("Logical queue %(logical)s is the physical queue %(physical)s, on host %(hostname)s.", route)
        return route

    @task
    def report(routes):
        """The routes of this run."""
        executor, variable = default_executor(), Variable.get("queue_map", default="not set")
        log.info("Executor: %s. Variable queue_map: %s", executor, variable)
        for route in routes:
            log.info("%-6s ▶ %-14s ran on %s", route["logical"], route["physical"], route["hostname"])
        return {"executor": executor, "routes": {route["logical"]: route["physical"] for route in routes}}

    queues, default = physical_queues(), conf.get("operators", "default_queue")
    kinds = ["light", "heavy", "io"]
    report([work.override(task_id=kind, queue=queues.get(kind, default))(kind) for kind in kinds])


queue_abstraction()
