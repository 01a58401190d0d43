"""What the seeds say of the CeleryExecutor: five questions, a scenario of scaling, and an exercise with 40 slots.

Hint: the broker's list of a queue is its depth; the pool of a worker is below its main process.
"""

import json
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from labs.waiting import until
from scenarios.judge import max_concurrent, span, waits
from scenarios.machine import connections

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

QUEUE = "default"

OTHER = "io-1"
"""A worker of another queue, which is another worker more where it takes from this one too."""

FAILOVER = """
import json
from airflow.providers.celery.executors.celery_executor_utils import app
dead, live = "redis://127.0.0.1:1/0", app.conf.broker_url

def tried(url):
    with app.connection_for_write(url) as connection:
        try:
            connection.ensure_connection(max_retries=1)
        except Exception as error:
            return type(error).__name__
        return f"{connection.hostname}:{connection.port}"

print(json.dumps({"one that refuses": tried(dead), "the lab's": tried(live), "both": tried(f"{dead};{live}")}))
"""
"""Where Celery, configured by Airflow, is connected after it was given these addresses of brokers."""


def test_all_workers_busy(airflow, celery, executing, start_probe, evidence, claim):
    """Question 4 of seed 001: with all slots taken, new tasks are queued in Airflow and wait in the broker."""
    (worker,) = executing.services
    idle = celery.waiting(QUEUE)[QUEUE]
    probe = start_probe("probe_executions")
    probe.wait_for_full_slots(executing.slots)
    full, queued = celery.waiting(QUEUE)[QUEUE], len(airflow.task_instances(probe.run)) - executing.slots
    active = len(celery.control(worker, "active"))
    second = start_probe("probe_executions")

    def more():
        now = celery.waiting(QUEUE)[QUEUE]
        return (now if now == full + 8 else None), f"{now} wait"

    fuller = until(more, what="eight more messages to wait", timeout=30)
    probe.release()
    second.release()
    for each in (probe, second):
        assert airflow.wait(each.run).state == "success"
    numbers = {
        "slots": executing.slots,
        "queued in Airflow": queued,
        "waiting in the broker, idle": idle,
        "all slots taken": full,
        "after eight tasks more": fuller,
        "in the end": celery.waiting(QUEUE)[QUEUE],
        "active, as the worker tells a monitor": active,
    }
    evidence("depth of the queue", numbers)
    assert set(probe.outcome().values()) == set(second.outcome().values()) == {("success", 1, 1, 1)}
    waiting = full - idle == queued > 0 and numbers["in the end"] == idle
    claim(
        "Message broker: holds tasks in queues; workers pull tasks from this queue (all workers busy: they wait there)",
        "seed 001",
        "holds" if waiting else "wrong",
        numbers,
    )
    claim(
        "Scenario, some tasks take too long: think about monitoring tools (they show what waits and what runs)",
        "seed 001",
        "holds" if waiting and active == executing.slots else "wrong",
        numbers,
    )


def test_no_broker(airflow, celery, faults, executing, start_probe, evidence, claim):
    """Question 1 of seed 001: without its broker no task reaches a worker, although all workers are idle."""
    for worker in executing.services:
        celery.wait_until_idle(worker)
    with faults.stopped("broker"):
        probe = start_probe("probe_executions", {"seconds": 0})
        deadline = time.time() + 15
        until(
            lambda: (True if time.time() > deadline else None, "waiting"),
            what="15 s to pass without a broker",
            timeout=20,
        )
        without = len(probe.executions())
        states = {ti.state for ti in airflow.task_instances(probe.run)}
    run = airflow.wait(probe.run)
    numbers = {
        "idle slots": executing.slots,
        "tasks executed in 15 s without the broker": without,
        "their states": sorted(str(state) for state in states),
        "executed once it was back": len(probe.executions()),
        "the run then ended as": run.state,
    }
    evidence("without a broker", numbers)
    claim("Must-have: a message broker (RabbitMQ or Redis)", "seed 001", "holds" if without == 0 else "wrong", numbers)


def test_isolation(airflow, celery, executing, start_probe, evidence, claim):
    """Question 3 of seed 001: tasks of a worker are processes of their own, of one user on one machine."""
    probe = start_probe("probe_executions")
    running = [probe.process(each) for each in probe.wait_for_full_slots(executing.slots)]
    (worker,) = executing.services
    main = celery.worker(worker)
    rows = [
        {
            "task process": process.pid,
            "pool process": process.ppid(),
            "worker": psutil.Process(process.ppid()).ppid(),
            "user": process.uids().real,
            "mounts": str(Path(f"/proc/{process.pid}/ns/mnt").readlink()),
        }
        for process in running
    ]
    evidence("processes of tasks that run at once", rows)
    numbers = {
        "tasks at once": len(rows),
        "task processes": len({row["task process"] for row in rows}),
        "pool processes": len({row["pool process"] for row in rows}),
        "workers": len({row["worker"] for row in rows}),
        "users": len({row["user"] for row in rows}),
        "file systems": len({row["mounts"] for row in rows}),
    }
    assert {row["worker"] for row in rows} == {main.pid}
    apart = numbers["task processes"] == numbers["pool processes"] == numbers["tasks at once"] > 1
    shared = numbers["users"] == numbers["file systems"] == 1
    verdict = "holds" if apart and shared else "wrong"
    claim("CeleryExecutor: not as isolated as KubernetesExecutor", "seed 001", verdict, numbers)


def test_workers_report_to_the_database(lab, celery, services, executing, start_probe, evidence, claim):
    """Seed 001: status goes to the metadata database. Since Airflow 3 it goes to the API server."""
    probe = start_probe("probe_executions")
    running = [probe.process(each) for each in probe.wait_for_full_slots(executing.slots)]
    (worker,) = executing.services
    (server,) = lab.outputs["services"]["metadata-database"]
    database = f"{services.host(server['name'])}:{server['endpoints']['sql'].rpartition(':')[2]}"
    supervisors = [psutil.Process(each.ppid()) for each in running]
    to = [c.remote for each in supervisors for c in connections(each) if c.remote]
    own = [c for each in running for c in connections(each) if c.remote]
    numbers = {
        "tasks running": len(running),
        "connections of their supervisors": dict(
            Counter("database" if address == database else "other" for address in to)
        ),
        "connections of the tasks themselves": len(own),
        "worker has the database's URL": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" in celery.worker(worker).environ(),
        "worker has the result backend's": "AIRFLOW__CELERY__RESULT_BACKEND" in celery.worker(worker).environ(),
    }
    evidence("connections while tasks run", numbers)
    verdict = "holds" if numbers["worker has the database's URL"] else "outdated"
    claim("Workers report back the status to the Airflow metadata database", "seed 001", verdict, numbers)


def test_a_worker_with_other_packages(airflow, start_probe, evidence, claim):
    """Question 5 of seed 001: a worker that lacks a package of the DAG's cannot run its tasks; others can."""
    probe = start_probe("probe_elsewhere")

    def seen():
        found = {ti.task_id: ti for ti in airflow.task_instances(probe.run)}
        there, lacking = found["has_it"], found["lacks_it"]
        log = airflow.log(lacking, 1) if lacking.try_number and lacking.started else ""
        told = "Dag not found during start up" in log or "only_elsewhere" in log
        return (
            (found, log) if there.state == "success" and told else None
        ), f"{there.state}, {lacking.state}: {log[-300:]}"

    found, log = until(seen, what="one task to succeed, and the other to say what it lacks", timeout=60)
    lines = [line for line in log.splitlines() if "not found" in line or "only_elsewhere" in line]
    numbers = {
        "with the package": found["has_it"].state,
        "without": found["lacks_it"].state or "none",
        "its log": lines[0] if lines else "",
    }
    evidence("one DAG on two workers", numbers)
    claim(
        "All workers must have the same Python dependencies and DAG files",
        "seed 001",
        "wrong" if numbers["without"] == "success" else "holds",
        numbers,
    )


def test_redundant_brokers(celery, evidence, claim):
    """Of several addresses of brokers Celery takes one that answers. That they hold the same is up to the brokers."""
    connected = json.loads(celery.python("-c", FAILOVER))
    evidence("connected to", connected)
    assert connected["one that refuses"] != connected["the lab's"], (
        "the address that should refuse connections takes them"
    )
    claim(
        "Scenario, reliability: think about broker redundancy (clients go on with another broker)",
        "seed 001",
        "holds" if connected["both"] == connected["the lab's"] else "wrong",
        {**connected, "whether what waits in one broker is in the other": "not shown: the lab has one"},
    )


def test_forty_slots(lab, airflow, celery, executing, start_probe, evidence, claim):
    """Seed 003's "200 queued, 40 slots", to scale: a larger pool, another worker, and a parallelism for them."""
    (worker,) = executing.services
    few, rows = executing.slots, {}
    others = {each["name"]: each["slots"] for each in lab.outputs["services"]["worker"]}

    def measured(what, slots, parallelism=32):
        probe = start_probe("probe_many", {"seconds": 1})
        depth, memory = [], []

        def watch(_instances):
            depth.append(celery.waiting(QUEUE)[QUEUE])
            memory.append(celery.memory(worker))

        run = airflow.wait(probe.run, 240, watch=watch)
        instances = airflow.task_instances(run)
        assert run.state == "success"
        rows[what] = {
            "slots": slots,
            "[core] parallelism": parallelism,
            "tasks": len(instances),
            "executed by": dict(Counter(each.service for each in probe.executions())),
            "at once, at most": max_concurrent(instances),
            "seconds": round(span(instances), 1),
            "waiting in the broker, at most": max(depth),
            "longest wait (s)": round(max(waits(instances)), 1),
            f"memory of {worker}, at most (MiB)": max(memory) // 2**20,
        }
        evidence(what, rows[what])
        return rows[what]

    first = measured("as it is", few)
    with celery.larger_pool(worker, few):
        pool = measured("twice the concurrency", 2 * few)
        with lab.reconfigured({"core.parallelism": str(few)}):
            third = measured("twice the concurrency, parallelism as before", 2 * few, few)
    with celery.serving(OTHER, QUEUE):
        another = measured("another worker", few + others[OTHER])

    def more(row):
        return row["at once, at most"] > first["at once, at most"] and row["seconds"] < first["seconds"]

    both = set(another["executed by"]) == {worker, OTHER}
    capped = third["at once, at most"] <= few < pool["at once, at most"]
    (held,) = (key for key in first if key.startswith("memory"))
    summary = {
        what: f"{row['at once, at most']} at once, {row['seconds']} s, {row['executed by']}"
        for what, row in rows.items()
    }
    waiting, scaled = "200 tasks wait for 40 slots: ", "holds" if both and more(another) else "wrong"
    claim(f"{waiting}add more workers so more tasks run at once", "seed 003", scaled, summary)
    claim("Scalability: add more workers to handle more tasks", "seed 001", scaled, summary)
    claim(
        "CeleryExecutor (distributed message queue)",
        "seed 002",
        "holds" if both and another["waiting in the broker, at most"] > 0 else "wrong",
        {"one queue, executed by": another["executed by"]},
    )
    claim(
        f"{waiting}or increase worker_concurrency",
        "seed 003",
        "holds" if more(pool) else "wrong",
        summary,
    )
    claim(
        f"{waiting}raise [core] parallelism if it is lower, so that workers use them all",
        "seed 003",
        "holds" if capped else "wrong",
        summary,
    )
    claim(
        "Scenario, tasks fail due to resource exhaustion: think about concurrency settings (they bound its memory)",
        "seed 001",
        "holds" if first[held] < pool[held] and first["at once, at most"] <= few else "wrong",
        {f"{row['slots']} slots (MiB)": row[held] for row in (first, pool)},
    )
