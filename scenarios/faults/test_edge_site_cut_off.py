"""A site is cut off from the API server for 30 s, while it runs two tasks that end meanwhile; or for 60 s, idle.

Airflow's contract: a worker and the supervisors of its tasks send again what was not answered: "the maximum number of
retry attempts to the execution API server" is `[workers] execution_api_retries`, and a task is ended only after
`max_failed_heartbeats` "consecutive failed heartbeats". So an outage that is shorter than both that and `[scheduler]
task_instance_heartbeat_timeout` costs no task. The latter is 300 s in production; this scenario runs with 120 s.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers

Hint: the site's log shows what it sent again; a task that the scheduler gave up is named in the scheduler's log.
"""

import time

import pytest

from labs.airflow import AirflowError
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import states

pytestmark = pytest.mark.needs(default_executor="EdgeExecutor")

SITE = "site-a"
OUTAGE = 30.0
"""Seconds."""

LONG = 60.0
"""Seconds: longer than a task that has ended may wait for the line."""

TELLING = "telling"
"""The task that returns something."""


@pytest.fixture
def returned(airflow):
    """`returned(ti)`: what has arrived of what a task instance returned; None for nothing."""

    def returned(ti):
        try:
            return airflow.xcom(ti)
        except AirflowError as error:
            if error.status != 404:
                raise
            return None

    return returned


def test_tasks_end_meanwhile_and_their_results_arrive_later(
    lab, airflow, faults, services, sites, start_probe, returned, evidence
):
    """What ran goes on and ends, Airflow learns of it when the line is back, and each task is executed once."""
    if missing := services.cannot_cut_off():
        pytest.skip(missing)
    slots = sites.all()[SITE].concurrency
    with lab.reconfigured({"scheduler.task_instance_heartbeat_timeout": "120"}):
        probe = start_probe("probe_results")
        across = {execution.task for execution in probe.wait_for_full_slots(slots)}

        with faults.cut_off(SITE) as fault:
            lost = sites.wait(SITE, lambda site: site.state == "unknown", what="taken for lost", timeout=OUTAGE)
            noticed = time.time() - fault.at
            probe.release()

            def ended():
                done = [execution for execution in probe.executions() if execution.ended]
                return (done if len(done) == slots else None), f"{len(done)} of {slots} ended"

            with late_fails():
                done = until(ended, what="the tasks to end at the site", timeout=OUTAGE)
            fault.last(OUTAGE)
            instances = airflow.task_instances(probe.run)
            during, early = states(instances), [returned(ti) for ti in instances if ti.task_id in across]
        run = airflow.wait(probe.run)

    account, instances = probe.account(), {ti.task_id: ti for ti in airflow.task_instances(run)}
    rows = [
        {
            "task": each.task,
            "by its process": each.ended - fault.at,
            "as recorded": instances[each.task].ended.timestamp() - fault.at,
            "returned": {"try": each.try_number, "pid": each.pid} if each.task == TELLING else None,
            "arrived": returned(instances[each.task]),
        }
        for each in done
    ]
    evidence("states at the end of the outage", during)
    evidence("seconds after the cut", {"taken for lost": noticed, "healthy again": fault.down})
    evidence("ends of the tasks that ran, seconds after the cut", rows)
    evidence("tasks", account)
    assert lost.state == "unknown"
    assert {execution.task for execution in done} == across == {TELLING, "silent"}
    assert during.get("running") == slots, "Airflow learned of the end while the site was cut off"
    assert early == [None] * slots, f"results arrived while the site was cut off: {early}"
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    for row in account:
        assert row["executions started"] == row["completed"] == row["tries"] == 1, f"{row} was not executed just once"
    for row in rows:
        assert row["arrived"] == row["returned"], f"what {row['task']} returned did not arrive as it was"
        assert 0 < row["by its process"] <= row["as recorded"], f"{row} was not recorded as it was"
        assert row["by its process"] < OUTAGE
        # a task has ended when what it returned has arrived, and without that, when its process says so
        assert (row["as recorded"] > OUTAGE) == (row["task"] == TELLING), f"{row} was not recorded as it was"


def test_what_a_site_could_not_fetch_waits_for_it(airflow, faults, services, sites, start_probe, evidence):
    """Tasks for its queue stay queued for a minute, and are executed once each when it is back."""
    if missing := services.cannot_cut_off():
        pytest.skip(missing)
    with faults.cut_off(SITE) as fault:
        sites.wait(SITE, lambda site: site.state == "unknown", what="taken for lost", timeout=OUTAGE)
        probe = start_probe("probe_executions")
        probe.release()
        until(
            lambda: (True if time.time() > fault.at + LONG else None, f"{time.time() - fault.at:.0f} s"),
            what=f"the outage to have lasted {LONG:.0f} s",
            timeout=LONG,
        )
        during, executed = states(airflow.task_instances(probe.run)), probe.executions()
    with late_fails():
        run = airflow.wait(probe.run, timeout=120)

    account = probe.account()
    evidence("states at the end of the outage", during)
    evidence("seconds after the cut", {"healthy again": fault.down})
    evidence("tasks", account)
    assert executed == [] and set(during) == {"queued"}, f"tasks ran at a site that was cut off: {during}"
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    for row in account:
        assert row["executions started"] == row["completed"] == row["tries"] == 1, f"{row} was not executed just once"
