"""What the seeds say of the LocalExecutor.

Hint: the process tree is in `ps -ef --forest`; LocalExecutor's workers are the children of the scheduler.
"""

import pytest

from scenarios.judge import max_concurrent

pytestmark = pytest.mark.needs(executor="LocalExecutor")


def test_tasks_run_in_subprocesses_on_the_same_machine(eight_tasks, evidence, claim):
    """Each task is a process below a worker process below the scheduler, in this machine's process table."""
    running = {ti.task_id: ti for ti in eight_tasks.during if ti.state == "running"}
    rows = [
        {
            "task": execution.task,
            "host": running[execution.task].hostname,
            "pid": execution.pid,
            "worker": eight_tasks.ancestors[execution.task][0],
            "scheduler": eight_tasks.ancestors[execution.task][1],
        }
        for execution in eight_tasks.executions
        if execution.task in running
    ]
    evidence("process tree while all slots were taken", rows)
    assert len(rows) == eight_tasks.slots, f"{len(rows)} tasks were executed on {eight_tasks.slots} slots"

    hosts = sorted({row["host"] for row in rows})
    pids, workers = {row["pid"] for row in rows}, {row["worker"] for row in rows}
    below = workers <= set(eight_tasks.full.workers) and {row["scheduler"] for row in rows} == {eight_tasks.scheduler}
    separate = len(pids) == len(workers) == len(rows)
    numbers = {
        "tasks at once": len(rows),
        "task processes": len(pids),
        "worker processes": len(workers),
        "hosts": hosts,
    }
    verdict = "holds" if below and separate and len(hosts) == 1 else "wrong"
    claim("LocalExecutor runs tasks in subprocesses on the same machine", "seed 003", verdict, numbers)
    claim("LocalExecutor – runs tasks locally (single machine)", "seed 001", verdict, numbers)
    claim("LocalExecutor (multiprocessing)", "seed 002", verdict, numbers)


def test_the_queue_is_in_memory_not_in_the_database(eight_tasks, evidence, claim):
    """Queued work waits in a pipe between scheduler and workers; the database only says `queued`."""
    queued = [ti.label for ti in eight_tasks.during if ti.state == "queued"]
    looks = {"idle": eight_tasks.idle, "all slots taken": eight_tasks.full, "ended": eight_tasks.ended}
    evidence("`queued` in the database while all slots were taken", queued)
    evidence(
        "pipes that the scheduler shares with all its workers, and connections",
        [
            {
                "when": when,
                "bytes waiting": sum(look.waiting.values()),
                "scheduler to": look.scheduler_to,
                "workers to": look.workers_to,
            }
            for when, look in looks.items()
        ],
    )
    assert queued, "no task was queued"

    in_memory = sum(eight_tasks.full.waiting.values()) - sum(eight_tasks.idle.waiting.values())
    from_database = [where for where in eight_tasks.full.workers_to if where in eight_tasks.full.scheduler_to]
    numbers = {
        "tasks queued in the database": len(queued),
        "bytes queued in memory": in_memory,
        "database connections of the workers": len(from_database),
    }
    assert (in_memory > 0) != bool(from_database), f"it cannot be told where the queue is: {numbers}"
    claim("LocalExecutor uses a database as a queue", "seed 003", "wrong" if in_memory > 0 else "holds", numbers)


def test_parallelism_is_the_number_of_worker_processes(eight_tasks, evidence, claim):
    """`[core] parallelism` workers, so that many tasks at once; LocalExecutor takes over more than that."""
    states = [ti.state for ti in eight_tasks.during]
    numbers = {
        "[core] parallelism": eight_tasks.slots,
        "worker processes": len(eight_tasks.full.workers),
        "tasks ready": len(states),
        "running at once": max_concurrent(eight_tasks.after),
    }
    evidence("while all slots were taken", numbers)
    assert len(states) > eight_tasks.slots, f"{len(states)} tasks cannot exceed {eight_tasks.slots} slots"
    bounded = numbers["running at once"] == numbers["worker processes"] == eight_tasks.slots
    claim("LocalExecutor: parallelism config", "seed 000", "holds" if bounded else "wrong", numbers)
    claim("parallelism: max task instances running", "seed 003", "holds" if bounded else "wrong", numbers)
