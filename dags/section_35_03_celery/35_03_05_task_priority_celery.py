"""# 35.3.5 Priorities, and where they end

`priority_weight` is Airflow's. The scheduler queues ready tasks in the order of their *effective* weight,
and the executor sends them to the broker in that order. There it ends:

    ready ──▶ scheduler: highest weight first ──▶ broker: first come, first served ──▶ worker

The effective weight of a task depends on its `weight_rule`:

| `weight_rule` | effective weight |
| --- | --- |
| `downstream`, the default | its own and that of every task after it: long chains start early |
| `upstream` | its own and that of every task before it: what is almost done is finished first |
| `absolute` | its own |

Seven tasks become ready at once for one slot, that of the queue `compute`. `max_active_tasks=5` lets five
tasks of this run out of the scheduler's hands. One of them, `alarm`, is over at once; then `urgent` is
ready, with a weight of 100.

* **No preemption**: `urgent` neither stops the running task nor overtakes those that are with the broker.
* It overtakes what the scheduler still holds. So priorities work as far as the broker is kept empty: give
  the tasks a pool with as many slots as their workers have, or limit `max_active_tasks`.
* **Priority queues** of Celery are not used: Airflow sends every message with Celery's priority 0. Urgent
  work needs a queue of its own, and a worker for it, or one that empties its queues in strict order:
  `[celery_broker_transport_options] queue_order_strategy = priority` with `-q urgent,compute`.
* **Fairness**: weights count across all DAGs and never grow while a task waits, so heavy tasks can starve
  light ones. Give each team or DAG a pool, a share that the others cannot take, rather than bid with
  weights.

The executor may send with several processes at once, by default one less than there are CPUs; then tasks
that were queued together arrive in almost this order. `[celery] sync_parallelism = 1` makes it strict.

**What to look for**: the order in the log of `report`, beside the weights.
"""

import json
import logging
import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

CONTENDERS = [
    ("absolute", 1),
    ("downstream", 2),  # its own 1, and report
    ("upstream", 3),  # its own 1, ready, and one of the tasks before
    ("absolute", 4),
    ("downstream", 5),  # its own 1, three tasks after, and report
    ("upstream", 7),  # its own 1, ready, and five tasks before
    ("absolute", 9),
]
"""Weight rule and effective weight of the seven, the lightest first."""


def message():
    """The Celery message that brought the running task to this worker; None where no Celery worker runs it."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app.current_task and app.current_task.request


@dag(
    dag_id="35_03_05_task_priority_celery",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=5,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "seconds": Param(2, type="number", minimum=0, maximum=60, description="how long each task works"),
    },
    doc_md=__doc__,
)
def task_priority_celery():
    @task
    def ready():
        """When this ends, seven tasks become ready at the same moment, for a worker that reads one queue."""
        strategy = conf.get("celery_broker_transport_options", "queue_order_strategy", fallback="round_robin")
        log.info("A worker with several queues takes from them by %s; within one, first come, first served.", strategy)
        return time.time()

    @task(queue="compute")
    def work(params=None, ti=None):
        """Takes the one slot of its queue; its message says which weight decided when."""
        started, request = time.time(), message()
        weight = request and json.loads(request.args[0])["ti"]["priority_weight"]
        priority = request and request.delivery_info["priority"]
        log.info("weight_rule %s, priority_weight %s", ti.task.weight_rule, ti.task.priority_weight)
        log.info("The message says: effective weight %s; and to Celery: priority %s", weight, priority)
        time.sleep(params["seconds"])
        return {"task": ti.task_id, "weight": weight, "celery_priority": priority, "started": started}

    @task(weight_rule="absolute", priority_weight=100)
    def alarm():
        """On another queue, and over while the first of the seven runs: then urgent becomes ready."""
        log.info("The broker holds what was sent before this line; now comes urgent.")
        return time.time()

    @task
    def report(ready, alarmed, spans):
        """The order in which the slot was taken; whom urgent overtook, and whom it did not."""
        spans = sorted(spans, key=lambda span: span["started"])
        if any(span["weight"] is None for span in spans):
            log.warning("No Celery worker ran these tasks, so there was no one slot: run this in the lab celery.")
        for span in spans:
            since = span["started"] - ready
            log.info("after %4.1f s  %-13s effective weight %s", since, span["task"], span["weight"])
        order = [span["task"] for span in spans]
        place = order.index("urgent")
        log.info("urgent became ready after %.1f s.", alarmed - ready)
        log.info("It waited for %s: running, or with the broker.", order[:place])
        log.info("It overtook %s: still held by the scheduler.", order[place + 1 :])
        log.info("The last one waited %.1f s; no wait makes a task heavier.", spans[-1]["started"] - ready)
        return {
            "order": order,
            "weights": {span["task"]: span["weight"] for span in spans},
            "celery_priorities": sorted({str(span["celery_priority"]) for span in spans}),
            "waited_for": order[:place],
            "overtook": order[place + 1 :],
        }

    contenders = {
        f"{rule}_{effective}": work.override(
            task_id=f"{rule}_{effective}", weight_rule=rule, priority_weight=effective if rule == "absolute" else 1
        )()
        for rule, effective in CONTENDERS
    }
    one = "One more task that upstream and downstream count; it needs no worker."
    before = [EmptyOperator(task_id=f"before_{number}", doc_md=one) for number in range(1, 6)]
    after = [EmptyOperator(task_id=f"after_{number}", doc_md=one) for number in range(1, 4)]
    before >> contenders["upstream_7"]
    before[0] >> contenders["upstream_3"]
    contenders["downstream_5"] >> after

    alarmed = alarm()
    urgent = work.override(task_id="urgent", weight_rule="absolute", priority_weight=100)()
    begin = ready()
    begin >> [*contenders.values(), alarmed]
    alarmed >> urgent
    report(begin, alarmed, [*contenders.values(), urgent])


task_priority_celery()
