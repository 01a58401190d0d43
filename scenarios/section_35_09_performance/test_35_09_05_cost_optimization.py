"""Work on workers that may go costs a unit of it, not all; and the plan that is taken is the cheapest that is in time.

Airflow's contract: a running task that sent no heartbeat for `[scheduler] task_instance_heartbeat_timeout` seconds is
failed, and tried again as often as its `retries` allow. Kubernetes': who drains a node gives its pods SIGTERM and some
seconds; Celery's: a worker that gets SIGTERM ends what it runs, and takes nothing more.
Sources: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#scheduler,
https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/ and
https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker

Hint: the log of `report` has a line for each plan, and one for each item with the tries that did its units.
"""

import math
import time
from itertools import pairwise

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import sequential
from scenarios.pods import ZONE
from scenarios.probing import ended
from scenarios.scaling import FIXED, GROUP

pytestmark = pytest.mark.needs(section="35.3", because="elsewhere no worker serves the queue compute alone")

DAG = "35_09_05_cost_optimization"
ITEMS, UNITS, SECONDS = 5, 4, 0.5

LONG = {"items": 1, "units": 12, "seconds": 2, "gone_after": 0}
"""A piece of work that lasts 24 s."""


@pytest.fixture(scope="module")
def ran(run_dag):
    """One run; the worker of its first item is said to go after two units."""
    return run_dag({"items": ITEMS, "units": UNITS, "seconds": SECONDS, "gone_after": 2}, timeout=240)


@pytest.fixture(scope="module")
def spot_node(lab, services, namespace):
    """A node with nothing but the worker of the queue, which tolerates its taint."""
    with lab.reconfigured({}, workers={GROUP: {"zone": "b"}}):
        nodes = [node for node in namespace.nodes_with(ZONE, "b") if services.on(node) == [FIXED]]
        if not nodes:
            pytest.skip("needs a node in zone b that takes nothing else, as kind clusters of these labs have it")
        yield nodes[0]


@pytest.fixture
def working(airflow, timeline):
    """A run of a long piece of work, whose task has been at it for some units."""
    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    run = airflow.trigger(DAG, LONG)
    timeline(run)

    def at_work():
        found = [ti for ti in airflow.task_instances(run) if ti.task_id == "spot" and ti.state == "running"]
        since = [time.time() - ti.started.timestamp() for ti in found if ti.started]
        return (run if since and since[0] > 10 else None), f"{len(found)} run, for {since} s"

    try:
        yield until(at_work, what="the piece of work to be under way", timeout=90, interval=0.5)
    finally:
        ended(airflow, run)


def pieces_of(airflow, run):
    """The units of each item, by its number, as its last try left them; and all tries."""
    spots = [ti for ti in airflow.task_instances(run) if ti.task_id == "spot"]
    told = {piece["item"]: piece["units"] for piece in map(airflow.xcom, spots)}
    return told, [each for ti in spots for each in airflow.tries(ti)]


@pytest.mark.needs(local="folders", because="elsewhere workers share no folder for notes")
def test_a_try_goes_on_behind_its_units(ran, airflow, evidence):
    """The first item's units are of two tries and none is missing; all others were done in one."""
    told, tries = pieces_of(airflow, ran.run)
    evidence("units by try", {item: [unit["by"] for unit in units] for item, units in told.items()})
    evidence("tries", [{"item": ti.map_index + 1, "try": ti.try_number, "state": ti.state} for ti in tries])
    assert {item: [unit["by"] for unit in units] for item, units in told.items()} == {
        item: [1, 1, 2, 2] if item == 1 else [1] * UNITS for item in range(1, ITEMS + 1)
    }
    assert [ti.state for ti in tries if ti.map_index == 0] == ["failed", "success"]
    assert len(tries) == ITEMS + 1


def test_the_cheapest_plan_in_time_is_taken(ran, airflow, evidence):
    """What each plan takes and costs is rounds of equal pieces, and no other in time costs less."""
    told = ran.xcom("report")
    _, tries = pieces_of(airflow, ran.run)
    first = [ti for ti in tries if ti.map_index == 0]
    away = sum((b.started - a.ended).total_seconds() for a, b in pairwise(first))
    plans = {plan["plan"]: plan for plan in told["plans"]}
    evidence("plans", told["plans"])
    evidence("taken", told["chosen"])
    evidence("seconds lost", {"told": told["again"], "between the tries, as Airflow recorded": away})
    assert told["again"] >= away, f"{told['again']:.1f} s are told to be lost, {away:.1f} s were between the tries"
    for kind, price, lost in (("on demand", 1.0, 0), ("spot", 0.35, told["again"])):
        for workers in (1, 2, 4):
            took = math.ceil(ITEMS / workers) * UNITS * SECONDS + lost
            assert plans[f"{workers} {kind}"]["took"] == pytest.approx(took)
            assert plans[f"{workers} {kind}"]["cost"] == pytest.approx(price * workers * took)
    in_time = [plan for plan in plans.values() if plan["took"] <= 6]
    least = min(plan["cost"] for plan in in_time)
    assert plans[told["chosen"]]["cost"] == least, f"{told['chosen']} is taken, but one in time costs {least:.1f}"
    assert min(plan["cost"] for plan in plans.values()) < least, "nothing is paid for being in time"


def test_idle_workers_are_what_a_day_costs(ran, evidence):
    """The worker-hours of a day, counted by hand: four all day; one in 11 hours of it; as many as tens of tasks."""
    hours = ran.xcom("idle")
    evidence("worker-hours", hours)
    assert hours == {
        "always the most": 4 * 24,
        "by a schedule: 1 at night, the most from 7 to 19, and at 3": 4 * 13 + 11,
        "by tasks, 1 at least": 30 + 8,
        "by tasks, none at least": 30,
    }


def test_a_request_is_what_was_measured(ran, evidence):
    """The task held what it was told to, so its peak is above; what is asked for is a fifth more."""
    sized = ran.xcom("sized")
    evidence("size", sized)
    assert sized["held"] < sized["peak"] < 1000
    assert sized["peak"] * 1.2 <= sized["requests"]["memory"] < sized["peak"] * 1.2 + 1
    assert sized["limits"]["memory"] > sized["requests"]["memory"]
    assert 0 < sized["requests"]["cpu"] < 2000


def test_on_one_worker_nothing_is_done_twice_at_once(ran, evidence):
    """The queue has one process: by Airflow's times its pieces of work follow each other."""
    spots = ran.all("spot")
    evidence("tasks", [{"item": ti.map_index + 1, "from": ti.started, "to": ti.ended} for ti in spots])
    assert sequential(spots)


@pytest.mark.needs(local="folders")
def test_a_worker_that_is_lost_costs_no_unit_that_was_noted(lab, airflow, faults, working, evidence):
    """Its process is killed without notice: the next try, on what takes its place, goes on behind the last note."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    with faults.killed(FIXED) as fault, late_fails():
        run = airflow.wait(working, timeout + 120)
    assert run.state == "success", airflow.explain(run)
    told, tries = pieces_of(airflow, run)
    by = [unit["by"] for unit in told[1]]
    evidence("units by try", by)
    evidence("tries", [{"try": ti.try_number, "state": ti.state, "at": ti.hostname} for ti in tries])
    evidence("seconds from the kill to the end", run.ended.timestamp() - fault.at)
    assert [ti.state for ti in tries] == ["failed", "success"]
    assert len(by) == LONG["units"] and by == sorted(by)
    assert by.count(1) >= 3, f"only {by.count(1)} units of the first try were kept"


@pytest.mark.needs(cluster="kind")
@pytest.mark.parametrize(("notice", "states"), [(60, ["success"]), (5, ["failed", "success"])], ids=["60 s", "5 s"])
def test_a_node_that_goes(lab, airflow, faults, services, spot_node, working, notice, states, evidence):
    """The node is drained while the work lasts: with notice enough the worker ends it, else another one goes on."""
    timeout = float(lab.outputs["options"]["scheduler.task_instance_heartbeat_timeout"])
    with faults.drained(spot_node, notice=notice) as drain, late_fails():
        left = services.on(spot_node)
        run = airflow.wait(working, timeout + 120)
    assert run.state == "success", airflow.explain(run)
    told, tries = pieces_of(airflow, run)
    by = [unit["by"] for unit in told[1]]
    evidence("evicted, seconds after the beginning", {name: at - drain.fault.at for name, at in drain.evicted.items()})
    evidence("units by try", by)
    evidence("tries", [{"try": ti.try_number, "state": ti.state, "seconds": ti.seconds} for ti in tries])
    assert list(drain.evicted) == [FIXED] and left == []
    assert [ti.state for ti in tries] == states, f"with {notice} s of notice the tries ended as {tries}"
    assert len(by) == LONG["units"] and by == sorted(by)
    assert by.count(1) >= 3, f"only {by.count(1)} units of the first try were kept"
