"""# 35.10.1 An executor that outlives its parts

Every part may fail, so there are two of each; what matters is who notices, and who takes over:

| part | noticed by | taken over by | in the lab `ha` after |
| --- | --- | --- | --- |
| worker, or its zone | missing heartbeats of its tasks | a retry, on a worker of the same queue | 30 s |
| scheduler | missing heartbeats of its job | the other one adopts its tasks | 20 + 10 s |
| triggerer | missing heartbeats of its job | the other one waits for its deferred tasks | 15 s |
| DAG processor | nobody has to | the other one parses the same files | at once |
| API server | failed health checks of a load balancer | the other one, for whom can reach it | seconds |

**Zones**: two groups of workers serve `default`, each in a zone of its own, so work that names no queue outlives the
loss of a zone. Each has a queue of its own too: work that is tied to one zone waits for its return.

**Failures**: what is lost with a worker is done again as the next try. So a task needs `retries`, a pause between
them that grows, a limit of time, and effects that do not add up when it runs twice.

**Health checks** tell two things apart: *alive* (if not, restart it) and *ready* (if not, send it no work).

| part | check |
| --- | --- |
| all in one | `GET /api/v2/monitor/health`: the latest heartbeat of each kind, so of two schedulers one is enough |
| scheduler | `airflow jobs check --job-type SchedulerJob --local`, or its own health server on port 8974 |
| triggerer, DAG processor | `airflow jobs check --job-type TriggererJob --local`, or `DagProcessorJob` |
| Celery worker | `celery inspect ping -d celery@$HOSTNAME`: the broker and the worker answer |

**On Kubernetes** a disruption budget keeps a planned disruption, such as the drain of a node, from taking all
replicas at once. It does not help against failures, and with one replica it only blocks the drain.

**What to look for**: the logs of `zones`, `health` and `budgets`; *Hostname* of the tasks `anywhere`; the two tries of
`fragile`.
"""

import json
import logging
import os
import signal
import time
import urllib.request
from datetime import timedelta

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

ZONES = ("zone_a", "zone_b")
"""Queues of their own that the zones have."""

BUDGETS = [
    {"part": "scheduler", "replicas": 2, "maxUnavailable": 1},
    {"part": "api-server", "replicas": 2, "minAvailable": 1},
    {"part": "triggerer", "replicas": 1, "minAvailable": 1},
    {"part": "worker", "replicas": 4, "minAvailable": "75%"},
    {"part": "database", "replicas": 1, "maxUnavailable": 0},
]
"""Disruption budgets as a chart's values would have them; the one triggerer and the database block every drain."""


def celery_app():
    """The Celery app of the worker that runs this task; None where no Celery worker runs it."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app if app.current_task else None


def allowed_disruptions(replicas, minAvailable=None, maxUnavailable=None, healthy=None):
    """How many pods may be evicted now; percentages are of the replicas, rounded up, as Kubernetes does."""

    def count(value):
        return -(-replicas * int(value.removesuffix("%")) // 100) if isinstance(value, str) else value

    needed = count(minAvailable) if minAvailable is not None else replicas - count(maxUnavailable)
    return max(0, (replicas if healthy is None else healthy) - needed)


@dag(
    dag_id="35_10_01_ha_executor_setup",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "advanced", "success"],
    params={
        "seconds": Param(2, type="number", minimum=0, maximum=60, description="how long each task `anywhere` works"),
    },
    doc_md=__doc__,
)
def ha_executor_setup():
    @task
    def zones():
        """Asks every worker, through the broker, which queues it serves: which of them outlive the loss of one?"""
        app = celery_app()
        if app is None:
            log.warning("No Celery worker runs this task, so there are no zones: run it in the lab ha.")
            return {}
        told = app.control.inspect().active_queues() or {}
        workers = {name.partition("@")[0]: sorted(queue["name"] for queue in queues) for name, queues in told.items()}
        servers = {}
        for worker, queues in sorted(workers.items()):
            for queue in queues:
                servers.setdefault(queue, []).append(worker)
        for queue, names in sorted(servers.items()):
            fate = "outlives the loss of a worker" if len(names) > 1 else "waits for its only worker"
            log.info("queue %-14s served by %-20s %s", queue, ", ".join(names), fate)
        return servers

    @task
    def anywhere(number, params=None, ti=None):
        """Names no queue, so any zone takes it."""
        log.info("Number %s runs on %s", number, ti.hostname)
        time.sleep(params["seconds"])
        return ti.hostname

    @task
    def tied(ti=None):
        """Names the queue of one zone, so it runs there or waits."""
        log.info("Queue %s, worker %s", ti.queue, ti.hostname)
        return ti.hostname

    @task(
        retries=2,
        retry_delay=timedelta(seconds=1),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(seconds=30),
        execution_timeout=timedelta(minutes=5),
    )
    def fragile(ti=None):
        """Its process is killed in the first try, as when a worker is lost; the next one does the work."""
        if ti.try_number == 1:
            log.info("Now the process of this try is killed.")
            os.kill(os.getpid(), signal.SIGKILL)
        key = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}"
        log.info("Try %s writes its result under %s: a third one would write the same there.", ti.try_number, key)
        return {"key": key, "try": ti.try_number, "worker": ti.hostname}

    @task
    def health():
        """Looks at each kind of service, and at each worker."""
        api = conf.get("core", "execution_api_server_url").rstrip("/").removesuffix("/execution")
        url = f"{api}/api/v2/monitor/health"
        with urllib.request.urlopen(url, timeout=10) as answer:
            kinds = {kind: said["status"] for kind, said in json.load(answer).items() if said}
        app = celery_app()
        workers = sorted(name.partition("@")[0] for name in (app.control.inspect().ping() or {})) if app else []
        for kind, status in sorted(kinds.items()):
            log.info("%-14s %s", kind, status)
        log.info("workers that answer a ping: %s", ", ".join(workers) or "none: no Celery worker runs this task")
        log.info("Of two schedulers, the one with the latest heartbeat speaks for both: ask for each one's job too.")
        return {"kinds": kinds, "workers": workers}

    @task
    def budgets():
        """How many pods of each part a drain may take, and what that means."""
        found = {}
        for budget in BUDGETS:
            part = budget["part"]
            limits = {key: value for key, value in budget.items() if key != "part"}
            found[part] = allowed_disruptions(**limits)
            meaning = "blocks every drain" if found[part] == 0 else f"a drain may take {found[part]} at a time"
            log.info("%-11s %s ▶ %s", part, limits, meaning)
        after_failure = allowed_disruptions(2, minAvailable=1, healthy=1)
        log.info("With one of two API servers gone already, a drain may take %s more.", after_failure)
        return {**found, "api-server, one gone": after_failure}

    found = zones()
    found >> anywhere.expand(number=[1, 2, 3, 4])
    found >> [tied.override(task_id=f"tied_to_{zone}", queue=zone)() for zone in ZONES]
    found >> fragile()
    health()
    budgets()


ha_executor_setup()
