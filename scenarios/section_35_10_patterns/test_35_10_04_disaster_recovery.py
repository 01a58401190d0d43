"""After the loss of a task, of the primary, and of every scheduler and worker at once, all work is done, once.

Airflow's contract: a running task that sent no heartbeat for `[scheduler] task_instance_heartbeat_timeout` seconds
fails, and is tried again as often as its `retries` allow; what was queued is with the broker, which keeps it on disk.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler

Hint: the log of `drill` has a line for each unit: by which try, and where.
"""

import time

import pytest

from labs.waiting import until
from scenarios.dispatching import adopted_tasks, queued_tasks
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.10")

DAG = "35_10_04_disaster_recovery"
UNITS = list(range(1, 9))


@pytest.fixture(scope="module")
def recovered(run_dag):
    """One run."""
    return run_dag()


@pytest.mark.needs(local="folders")
def test_a_task_goes_on_behind_its_checkpoint(recovered, airflow, evidence):
    """The first try did three units and was killed, the second one did the rest, and none twice."""
    notes = recovered.xcom("process")
    tries = airflow.tries(recovered.one("process"))
    evidence("units", notes)
    evidence("tries", [{"try": t.try_number, "state": t.state, "worker": t.hostname, "pid": t.pid} for t in tries])
    done = [(note["unit"], note["by"]) for note in notes]
    assert done == [(unit, 1 if unit <= 3 else 2) for unit in UNITS], f"units by the try that did them: {done}"
    assert [(t.try_number, t.state) for t in tries] == [(1, "failed"), (2, "success")]
    assert tries[0].pid != tries[1].pid


@pytest.mark.needs(local="folders")
def test_the_drill_measures_what_happened(recovered, airflow, evidence):
    """No unit is lost, and nothing went on for at least as long as Airflow had no process for the task."""
    told, (first, second) = recovered.xcom("drill"), airflow.tries(recovered.one("process"))
    away = (second.started - first.ended).total_seconds()
    evidence("drill", {**told, "between the tries, as Airflow recorded (s)": away})
    assert (told["lost"], told["tries"]) == ([], [1, 2])
    (pause,) = told["paused"]
    assert pause >= away > 0, f"the drill measured {pause:.1f} s, between the tries were {away:.1f} s"


@pytest.mark.needs(replicas="worker")
def test_the_standby_does_the_work_of_a_failed_primary(recovered, evidence):
    """The primary failed for good in its zone, the standby ran after that in the other one, and the run goes on."""
    primary, standby, published = (recovered.one(task) for task in ("primary", "standby", "published"))
    ways = [
        {"task": ti.task_id, "state": ti.state, "queue": ti.queue, "worker": ti.hostname} for ti in (primary, standby)
    ]
    evidence("ways", ways)
    assert (primary.state, primary.queue, primary.hostname) == ("failed", "zone_a", "zone-a-1")
    assert (standby.state, standby.queue, standby.hostname) == ("success", "zone_b", "zone-b-1")
    assert standby.started > primary.ended
    assert published.state == "success"
    assert recovered.xcom("published") == {"done_by": "standby", "worker": "zone-b-1"}


@pytest.mark.needs(default_executor="LocalExecutor")
def test_the_standby_works_on_another_executor(recovered, celery, evidence):
    """The primary failed for good on the first executor of the list, a worker of the second one took the standby."""
    primary, standby = recovered.one("primary"), recovered.one("standby")
    taken = {t.task_id: (t.worker, t.queue) for t in celery.taken(recovered.run)}
    ways = [
        {"task": ti.task_id, "state": ti.state, "executor": ti.executor, "ran at": ti.hostname}
        for ti in (primary, standby)
    ]
    evidence("ways", ways)
    evidence("log of the Celery worker", taken)
    assert (primary.state, primary.executor, primary.hostname) == ("failed", None, "scheduler")
    assert standby.executor == "celery", f"the standby was to run on {standby.executor}, and ran at {standby.hostname}"
    assert (standby.state, standby.hostname) == ("success", "default-1")
    assert taken == {"standby": ("default-1", "zone_b")}, f"what Celery's worker took of the run: {taken}"
    assert standby.started > primary.ended
    assert recovered.xcom("published") == {"done_by": "standby", "worker": "default-1"}


@pytest.mark.needs(executor="KubernetesExecutor")
def test_the_standby_is_a_pod_of_another_executor(recovered, celery, evidence):
    """The Kubernetes half: a worker took the primary, which failed for good; after that a pod did the work."""
    (life,) = recovered.history.lives(recovered.run)
    primary, standby, published = (recovered.one(task) for task in ("primary", "standby", "published"))
    workers = {taken.task_id for taken in celery.taken(recovered.run)}
    evidence("pod", life.row())
    evidence("workers took", sorted(workers))
    assert (life.task_id, life.name) == ("standby", standby.hostname)
    assert "primary" in workers and "standby" not in workers
    assert (primary.state, standby.state, standby.executor) == ("failed", "success", "KubernetesExecutor")
    assert standby.started > primary.ended
    assert (published.state, recovered.xcom("published")["done_by"]) == ("success", "standby")


def test_a_healthy_primary_leaves_the_standby_alone(run_dag, evidence):
    """The other way round: nothing fails, the standby is skipped, and the primary's result is published."""
    run = run_dag({"primary_fails": False, "crash_after": 0, "seconds": 0})
    evidence("states", {ti.task_id: ti.state for ti in run.instances})
    assert (run.one("primary").state, run.one("standby").state) == ("success", "skipped")
    assert run.xcom("published")["done_by"] == "primary"
    assert run.one("process").try_number == 1


@pytest.mark.needs(replicas="scheduler")
def test_all_schedulers_and_workers_lost_at_once(
    lab, airflow, faults, start_probe, service_log, timeline, replicas, evidence
):
    """What was running goes on in its next try behind its checkpoint, what was queued is adopted and executed once."""
    schedulers = {name: service_log("scheduler", number) for number, name in enumerate(replicas.names["scheduler"])}
    workers = lab.outputs["services"]["worker"]
    slots = sum(worker["slots"] for worker in workers)
    airflow.wait_for_dag(DAG)
    run = airflow.trigger(DAG, {"crash_after": 0, "seconds": 4, "primary_fails": False})
    timeline(run)

    def process():
        return next(ti for ti in airflow.task_instances(run) if ti.task_id == "process")

    def others_done():
        left = [ti.label for ti in airflow.task_instances(run) if ti.task_id in ("primary", "standby", "published")]
        left = [ti for ti in airflow.task_instances(run) if ti.label in left and ti.state not in ("success", "skipped")]
        noted = airflow.log(process()).count("is done and noted")
        return (noted if noted and not left else None), f"{noted} units, {len(left)} other tasks"

    before = until(others_done, what="only `process` to be left, with a unit done", timeout=60)
    probe = start_probe("probe_executions")
    interrupted = {execution.task for execution in probe.wait_for_full_slots(slots - 1)}
    queued = frozenset().union(*(queued_tasks(said(), probe.run) for said in schedulers.values())) - interrupted

    def adopted():
        found = frozenset().union(*(adopted_tasks(said(), probe.run) for said in schedulers.values()))
        return (found if queued <= found else None), f"{sorted(found)} of {sorted(queued)}"

    with faults.lost(*schedulers, *(worker["name"] for worker in workers)) as fault:
        down = [ti.state for ti in airflow.task_instances(run) if ti.task_id == "process"]
    back = fault.down
    with late_fails():
        taken = until(adopted, what="the new schedulers to adopt what was queued", timeout=60)
        adoption = time.time() - fault.at
        probe.release()
        run = airflow.wait(run, timeout=180)
        airflow.wait(probe.run, timeout=120)
    recovered = time.time() - fault.at

    notes = airflow.xcom(process())
    drill = airflow.xcom(next(ti for ti in airflow.task_instances(run) if ti.task_id == "drill"))
    account = probe.account()
    evidence("units", notes)
    evidence("drill", drill)
    evidence("tasks without retries", account)
    evidence("adopted by a new scheduler", sorted(taken))
    evidence("seconds after the loss", {"all services healthy": back, "adopted": adoption, "all runs ended": recovered})
    assert len(queued) == len(account) - len(interrupted) > 0, f"queued at the loss were {sorted(queued)}"
    assert down == ["running"], "the loss was noticed while nobody was there to notice"
    assert [note["unit"] for note in notes] == UNITS and drill["lost"] == []
    assert {note["by"] for note in notes} == {1, 2}
    assert sum(note["by"] == 1 for note in notes) >= before
    for row in account:
        if row["task"] in interrupted:
            expected = ("failed", 1, 1, 0)
        else:
            expected = ("success", 1, 1, 1)
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == expected, f"{row['task']} ended as {row['state']}: {row}"
