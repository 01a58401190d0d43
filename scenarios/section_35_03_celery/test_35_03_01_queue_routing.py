"""The queue of a task decides which worker runs it: only workers that subscribe to a queue take from it.

Hint: `lab status` shows whether all workers run; a task of a queue that none of them serves stays queued.
"""

import pytest

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

ROUTES = {
    "on_default": ("default", "default-1"),
    "on_heavy_compute": ("heavy_compute", "heavy-1"),
    "on_io_bound": ("io_bound", "io-1"),
}
"""Task → its queue, and the worker that takes from it."""


@pytest.fixture(scope="module")
def routed(run_dag):
    """One run."""
    return run_dag()


def test_each_worker_takes_from_its_own_queue(routed, celery, evidence):
    """What the workers say over the broker is what they were started for: no queue has two of them."""
    told = {worker.partition("@")[0]: queues for worker, queues in routed.xcom("subscriptions").items()}
    evidence("queues of the workers", told)
    assert told == celery.queues()
    assert all(told[worker] == [queue] for queue, worker in ROUTES.values())


def test_the_queue_chooses_the_worker(routed, evidence):
    """Airflow records the queue that a task asked for, and the worker that took it."""
    found = {ti.task_id: (ti.queue, ti.hostname) for ti in routed.all(*ROUTES)}
    evidence("tasks", [{"task": task, "queue": queue, "worker": worker} for task, (queue, worker) in found.items()])
    assert found == ROUTES
    unnamed = {ti.task_id: (ti.queue, ti.hostname) for ti in routed.instances if ti.task_id not in ROUTES}
    assert set(unnamed.values()) == {("default", "default-1")}, f"tasks that name no queue went elsewhere: {unnamed}"


def test_only_that_worker_saw_it(routed, celery, evidence):
    """The worker wrote each task into its own log, once, and no other worker did."""
    taken = celery.taken(routed.run)
    evidence("logs of the workers", [{"worker": t.worker, "task": t.task_id, "queue": t.queue} for t in taken])
    for task, (queue, worker) in ROUTES.items():
        assert [(t.queue, t.worker) for t in taken if t.task_id == task] == [(queue, worker)]
    assert len(taken) == len(routed.instances)


def test_the_message_came_by_that_queue(routed, evidence):
    """In the task, the message itself names the queue by which it came, and the process is the one Airflow knows."""
    routes = {ti.task_id: (routed.xcom(ti.task_id), ti) for ti in routed.all(*ROUTES)}
    evidence("as the tasks say", [told for told, _ in routes.values()])
    for task, (told, ti) in routes.items():
        queue, worker = ROUTES[task]
        assert told["routing_key"] == told["queue"] == queue
        assert told["worker"].partition("@")[0] == told["hostname"] == worker
        assert told["pid"] == ti.pid, "Airflow recorded another process"
    assert routed.xcom("report")["routed"] is True
