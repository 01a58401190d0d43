"""Pods are deleted under a steady load, one at a time, in pairs, and one of each role at once: every task ends once.

Airflow's contract: what a lost scheduler had is adopted by the other one; reports of tasks that nobody takes are tried
again; a task that sent no heartbeat for `[scheduler] task_instance_heartbeat_timeout` is tried again as its `retries`
allow. Celery's: what could not be sent or stored is sent and stored again, where it is told to. Kubernetes': another
pod takes the place of a deleted one, with the same claim where it has one; nobody answers at the old one's address.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers,
https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-always-retry and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#stable-storage

Hint: what was tried again is in the evidence; the log of its first try says why.
"""

import time

import pytest

from labs.airflow import Airflow
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import ended_once
from scenarios.loading import TASKS, cost, pace, standstill, steady_load
from scenarios.probing import probe_runs

pytestmark = [
    pytest.mark.long,
    pytest.mark.needs(executor="CeleryExecutor", platform="kubernetes", replicas="scheduler"),
]

RATE = 2.0
"""Tasks per second: what two cores bear with four slots, as measured without a fault."""

SERVICES = (
    ("scheduler-1",),
    ("api-server-1",),
    ("broker",),
    ("metadata-database",),
    ("pgbouncer",),
    ("scheduler-1", "api-server-1"),
    ("broker", "pgbouncer"),
    ("metadata-database", "scheduler-2"),
)

ONE_OF_EACH = ("scheduler-2", "api-server-2", "dag-processor-2", "triggerer-2", "zone-b-1")

STUCK = 900
"""Seconds in which all tasks must have ended. What a killed worker had taken from the broker and not begun waits for
`[scheduler] task_queued_timeout`, 600, which is looked at every 120 s, and is then sent again: nothing else misses it,
as the broker gives it to another worker only after `visibility_timeout`, a day."""


@pytest.fixture
def start(lab, probes, exchange, services):
    """As `start_probe`, but with an Airflow of its own, for a thread of its own, and no drawing of each run."""
    airflow = Airflow(lab.outputs["api_url"], lab.outputs["admin_user"], lab.outputs["admin_password"], patience=240)
    with probe_runs(airflow, exchange, services.process) as start:
        yield start


@pytest.mark.parametrize(
    ("deleted", "seconds"),
    [pytest.param(SERVICES, 300, id="services"), pytest.param([ONE_OF_EACH], 60, id="one of each")],
)
def test_every_task_ends_once(deleted, seconds, lab, airflow, faults, executing, start, evidence):
    """All end successfully; none comes to its end twice, by the count of the tasks themselves; no slot is lost."""
    there = {replica["name"] for group in lab.outputs["services"].values() for replica in group}
    if missing := {service for gone in deleted for service in gone} - there:
        pytest.skip(f"needs a lab with {', '.join(sorted(missing))}")
    happened = {}

    with steady_load(start, RATE) as load:
        _wait_for_all_slots(load, executing.slots)
        for gone in deleted:
            with faults.pod_deleted(*gone) as fault:
                happened[" and ".join(gone)] = fault
            _wait_for_all_slots(load, executing.slots)
        over = load.began + seconds
        until(lambda: (time.time() > over or None, "not yet"), what=f"{seconds} s of load", timeout=seconds)
    with late_fails():
        until(load.all_ended, what="all tasks to end", timeout=STUCK, interval=1)
    for each in load.runs:
        airflow.wait(each.run)

    account, done, given = load.account(), load.executions(), TASKS * len(load.runs)
    evidence("load", {"tasks": given, "seconds": load.seconds, "tasks per second": given / load.seconds})
    evidence("tasks by how they ended", cost(account))
    evidence(
        "while the lab was not healthy",
        [
            {
                "deleted": name,
                "at second": fault.at - load.began,
                "healthy after": fault.down,
                "tasks per second": pace(done, fault.at, fault.at + fault.down),
                "no task ended for": standstill(done, fault.at, fault.at + fault.down),
            }
            for name, fault in happened.items()
        ],
    )
    evidence("tried again", [row for row in account if row["tries"] > 1])
    assert load.seconds >= seconds and given / load.seconds > 0.9 * RATE, f"{given} tasks in {load.seconds:.0f} s"
    assert ended_once(account) == [], "these did not end just once"


def _wait_for_all_slots(load, slots):
    """Wait until every slot of the workers has executed a task that began from now on."""
    now = time.time()

    def probe():
        found = {(each.service, each.worker) for each in load.executions() if each.ended and each.started > now}
        return (True if len(found) >= slots else None), f"{len(found)} of {slots} have"

    with late_fails():
        until(probe, what="every slot to execute a task", timeout=120, interval=1)
