"""One scheduler of two is lost with all that it handed over, or frozen for longer than its heartbeat may be missing.

Airflow's contract: "Airflow supports running more than one scheduler concurrently", and when one has sent no heartbeat
for `[scheduler] scheduler_health_check_threshold` seconds, another takes over what it had queued, at the latest
`orphaned_tasks_check_interval` later. CeleryExecutor adopts such tasks by the ids of their messages, so they are
neither lost nor executed again. In production that takes up to 30 + 300 s; in this lab up to 20 + 10 s. A scheduler
notes those ids of the tasks whose rows nobody holds at that moment, and of no other later: a task that begins just then
is never known by its message, and is reset when its scheduler is lost. Such tasks are told, and not judged.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/scheduler.html

The health endpoint stays healthy meanwhile, for the latest heartbeat speaks for both; `airflow jobs check` tells them
apart.

Hint: the survivor's log names the tasks that it adopted; `./lab logs ha scheduler-2`.
"""

import time

import pytest

from labs.waiting import until
from scenarios.dispatching import adopted_tasks, queued_tasks, sent_tasks
from scenarios.faulting import late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", replicas="scheduler")


def jobs_check(services, where, hostname):
    """What Airflow's own health check of one scheduler says, asked for where another one runs."""
    done = services.run(where, ["airflow", "jobs", "check", "--job-type", "SchedulerJob", "--hostname", hostname])
    return [*done.stdout.splitlines(), *done.stderr.splitlines()][-1]


@pytest.mark.parametrize("fault", ["lost", "frozen"])
def test_the_other_adopts_its_tasks_and_goes_on_alone(
    fault, lab, airflow, faults, services, replicas, start_probe, service_log, evidence, claim
):
    """Running and queued tasks are executed once, in their first try; a run that is new is served at once."""
    said = {name: service_log("scheduler", number) for number, name in enumerate(replicas.names["scheduler"])}
    slots = sum(worker["slots"] for worker in lab.outputs["services"]["worker"])
    before = replicas.jobs()
    probe = start_probe("probe_executions")
    probe.wait_for_full_slots(slots)
    queued = {name: queued_tasks(log(), probe.run) for name, log in said.items()}
    owner = max(queued, key=lambda name: len(queued[name]))
    (survivor,) = set(said) - {owner}

    def noted():  # until then it may hold a task's row, which a frozen one never lets go
        left = queued[owner] - sent_tasks(said[owner](), probe.run)
        running = {ti.task_id for ti in airflow.task_instances(probe.run) if ti.state == "running"}
        return (left if left <= running else None), f"not noted as sent are {sorted(left)}"

    early = until(noted, what=f"{owner} to have sent what it queued", timeout=60)
    known = queued[owner] - early
    assert known, f"{owner} noted none of its tasks as sent"

    with getattr(faults, fault)(owner) as injected:
        new = start_probe("probe_retries")

        def served():
            found = queued_tasks(said[survivor](), new.run)
            return (time.time() - injected.at if len(found) == 2 else None), f"{len(found)} of 2 tasks queued"

        def adopted():
            found = adopted_tasks(said[survivor](), probe.run)
            return (found or None), f"{survivor} has adopted nothing"

        with late_fails():
            seconds = {"new run queued by the other": until(served, what=f"{survivor} to queue a new run", timeout=30)}
            taken = until(adopted, what=f"{survivor} to adopt the tasks of {owner}", timeout=60)
            seconds["its tasks adopted"] = time.time() - injected.at
            checks = {
                "GET /monitor/health": airflow.health()["scheduler"].status,
                **{f"airflow jobs check of {name}": jobs_check(services, survivor, name) for name in said},
            }
            probe.release()
            new.release()
            runs = [airflow.wait(each.run) for each in (probe, new)]
            seconds["all tasks successful"] = time.time() - injected.at
    after = replicas.jobs()

    account, others = probe.account(), new.account()
    judged = [*(row for row in account if row["task"] not in early), *others]
    evidence("who had queued the run", {name: sorted(tasks) for name, tasks in queued.items()})
    evidence("adopted by the other", sorted(taken))
    evidence("began before their scheduler was seen to note their messages, so may not be adopted", sorted(early))
    evidence("tasks", [*account, *others])
    evidence("health checks meanwhile", checks)
    evidence("seconds after the fault", seconds)
    evidence("jobs", [{"scheduler": name, "before": before[name].id, "after": after[name].id} for name in said])
    claim(
        "If one scheduler dies, another takes over",
        "seed 003",
        "holds" if known <= taken and {run.state for run in runs} == {"success"} else "wrong",
        {f"of {owner}, {fault}, adopted": f"{len(taken & known)} of {len(known)} tasks", **seconds},
    )
    assert checks == {
        "GET /monitor/health": "healthy",
        f"airflow jobs check of {owner}": "No alive jobs found.",
        f"airflow jobs check of {survivor}": "Found one alive job.",
    }, "the latest heartbeat speaks for both schedulers, and only each one's own check tells them apart"
    assert {run.state for run in runs} == {"success"}
    assert known <= taken <= queued[owner], f"{sorted(taken)} were adopted of {sorted(known)}"
    for row in judged:
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1, 1, 1), (
            f"{row['task']} ended as {row['state']} at try {row['tries']}, "
            f"executed {row['executions started']} times, {row['completed']} to the end"
        )
    assert after[survivor].id == before[survivor].id, f"{survivor} did not live through it"
    assert (after[owner].id == before[owner].id) == (fault == "frozen")
