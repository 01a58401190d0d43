"""# 35.3.1 Tasks reach workers through queues

`queue=` on a task names a list in the broker. The executor puts the task there and does not know who will
take it; a worker takes tasks only from the queues that it was started with:

    airflow celery worker --queues heavy_compute --concurrency 1 --celery-hostname heavy-1@%h

| queue | for | its worker in the lab `celery` | tasks at once |
| --- | --- | --- | --- |
| `default` | whatever names no queue: `[operators] default_queue` | `default-1` | 2 |
| `heavy_compute` | work that keeps a CPU or much memory busy | `heavy-1` | 1 |
| `io_bound` | work that waits for other systems | `io-1` | 2 |

A task in a queue that no worker takes from stays `queued` until `[scheduler] task_queued_timeout`; no error
tells you before that.

**What to look for**: the table in the log of `report`. In the details of a task instance, *Queue* is what
was asked for, and *Hostname* says who took it: in these labs each worker goes by its own name (`[core]
hostname_callable`); without that, all workers of a machine have the machine's name.
"""

import logging
import os

from airflow.sdk import dag, task

log = logging.getLogger("airflow.task")


def message():
    """The Celery message that brought the running task to this worker; None where no Celery worker runs it."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app.current_task and app.current_task.request


@dag(
    dag_id="35_03_01_queue_routing",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    doc_md=__doc__,
)
def queue_routing():
    @task
    def subscriptions():
        """Asks every worker, through the broker, from which queues it takes tasks."""
        from airflow.providers.celery.executors.celery_executor_utils import app

        if message() is None:
            log.warning("No Celery worker runs this task, so queues mean nothing here: run it in the lab celery.")
            return {}
        workers = app.control.inspect().active_queues() or {}
        found = {worker: sorted(queue["name"] for queue in queues) for worker, queues in workers.items()}
        for worker, queues in sorted(found.items()):
            log.info("%s takes tasks from %s", worker, queues)
        return found

    @task
    def work(ti=None):
        """Does the same on every queue: looks at the message that brought it here."""
        request = message()
        route = {
            "queue": ti.queue,
            "routing_key": request and request.delivery_info["routing_key"],
            "worker": request and request.hostname,
            "hostname": ti.hostname,
            "pid": os.getpid(),
        }
        log.info("Asked for queue %(queue)s; came by queue %(routing_key)s; taken by worker %(worker)s", route)
        return route

    @task
    def report(subscriptions, routes):
        """Each task was taken by a worker that subscribes to its queue, and by no other."""
        for route in routes:
            route["subscribed"] = route["queue"] in subscriptions.get(route["worker"], [])
            log.info("%(queue)-13s ▶ %(worker)-22s subscribed to it: %(subscribed)s", route)
        workers = {route["queue"]: route["worker"] for route in routes}
        return {"workers": workers, "routed": all(route["subscribed"] for route in routes)}

    routes = [
        work.override(task_id="on_default", queue="default")(),
        work.override(task_id="on_heavy_compute", queue="heavy_compute")(),
        work.override(task_id="on_io_bound", queue="io_bound")(),
    ]
    known = subscriptions()
    known >> routes
    report(known, routes)


queue_routing()
