"""Weights order what the scheduler sends; the broker keeps that order, and nothing that it holds is overtaken.

Hint: the order holds for one sender: `[celery] sync_parallelism = 1`; the log of `report` shows it beside the weights.
"""

import contextlib

import pytest

from labs.waiting import until
from scenarios.judge import sequential
from scenarios.observing import Observation

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

DAG = "35_03_05_task_priority_celery"
WEIGHTS = {
    "absolute_1": 1,
    "downstream_2": 2,
    "upstream_3": 3,
    "absolute_4": 4,
    "downstream_5": 5,
    "upstream_7": 7,
    "absolute_9": 9,
    "urgent": 100,
}
STRATEGY = "celery_broker_transport_options.queue_order_strategy"

PRIORITY = ["compute\x06\x163", "compute\x06\x166", "compute\x06\x169"]
"""The lists to which Celery would send messages of a priority above 0."""


@pytest.fixture(scope="module")
def prioritized(airflow, celery, timeline):
    """A run, and what waited in the broker's lists at each look."""
    waiting = []
    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    run = airflow.trigger(DAG, {"seconds": 2})
    timeline(run)
    run = airflow.wait(run, 240, watch=lambda _: waiting.append(celery.waiting("compute", *PRIORITY)))
    assert run.state == "success", airflow.explain(run)
    return Observation(airflow, run, airflow.task_instances(run), []), waiting


@pytest.fixture(scope="module")
def order(prioritized):
    """The tasks for the one slot, in the order in which they started."""
    run, _ = prioritized
    return sorted(run.all(*WEIGHTS), key=lambda ti: ti.started)


def test_each_rule_gives_its_weight(prioritized, celery, evidence):
    """The message to the worker carries the effective weight: of each rule what the table says."""
    run, _ = prioritized
    weights = {t.task_id: t.weight for t in celery.taken(run.run) if t.worker == "compute-1"}
    evidence("weights in the messages", weights)
    assert weights == WEIGHTS
    assert run.xcom("report")["weights"] == WEIGHTS


def test_one_slot_takes_them_as_they_were_sent(prioritized, order, celery, evidence):
    """They start one by one: first those that were queued first; of those queued together, the heaviest."""
    run, _ = prioritized
    evidence(
        "order",
        [
            {"task": ti.task_id, "weight": WEIGHTS[ti.task_id], "queued": ti.queued, "started": ti.started}
            for ti in order
        ],
    )
    names = [ti.task_id for ti in order]
    assert {ti.hostname for ti in order} == {"compute-1"}
    assert sequential(order), "two ran at once"
    assert names == [ti.task_id for ti in sorted(order, key=lambda ti: (ti.queued, -WEIGHTS[ti.task_id]))]
    assert names == [t.task_id for t in celery.taken(run.run) if t.worker == "compute-1"]
    assert names == run.xcom("report")["order"]
    lighter = [WEIGHTS[name] for name in names if name != "urgent"]
    assert lighter == sorted(lighter, reverse=True), "the seven that were ready together ran in another order"


def test_urgent_does_not_preempt(prioritized, order, evidence):
    """`urgent` waits for all that were queued before it and overtakes only what was queued after it."""
    run, _ = prioritized
    urgent, told = run.one("urgent"), run.xcom("report")
    before = [ti.task_id for ti in order if ti.queued < urgent.queued]
    after = [ti.task_id for ti in order if ti.queued > urgent.queued]
    evidence("queued before urgent, and run before it", before)
    evidence("overtaken: the scheduler still held them", after)
    assert before, "nothing was with the broker when urgent came"
    assert after, "the scheduler held nothing when urgent came"
    assert [ti.task_id for ti in order] == [*before, "urgent", *after]
    assert (told["waited_for"], told["overtook"]) == (before, after)
    assert all(ti.try_number == 1 and ti.state == "success" for ti in order), "a task was stopped for another"


def test_celery_knows_no_priority(prioritized, evidence):
    """All messages wait in the one list of priority 0; the lists of higher priorities stay empty."""
    run, waiting = prioritized
    most = {name.replace("\x06\x16", ", priority "): max(look[name] for look in waiting) for name in waiting[0]}
    evidence("most that waited", most)
    assert most.pop("compute") > 0, "nothing waited in the broker"
    assert set(most.values()) == {0}
    assert run.xcom("report")["celery_priorities"] == ["0"]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        pytest.param("", ["bulk", "urgent", "bulk", "urgent", "bulk", "urgent"], id="by default"),
        pytest.param(
            "priority", ["bulk", "urgent", "urgent", "urgent", "bulk", "bulk"], id="priority", marks=pytest.mark.long
        ),
    ],
)
def test_a_queue_of_its_own_for_what_is_urgent(strategy, expected, lab, airflow, celery, start_probe, evidence):
    """One slot, two queues: what came later takes turns with what waits there, or goes first if so configured."""
    urgent, bulk = "compute", "nobody"
    configured = lab.reconfigured({STRATEGY: strategy}) if strategy else contextlib.nullcontext()
    with configured, celery.serving("compute-1", bulk):  # as with `-q compute,nobody`
        first = [start_probe("probe_unserved") for _ in range(3)]

        def sent(wanted):
            def probe():
                found = celery.waiting(urgent, bulk)
                running = sum(len(each.executions()) for each in first)
                return (True if (*found.values(), running) == (*wanted, 1) else None), f"{found}, {running} runs"

            return probe

        until(sent((0, 2)), what="one to run, and two to wait", timeout=60)
        later = start_probe("probe_compute")
        until(sent((3, 2)), what="the urgent ones to wait, too", timeout=60)
        for each in (*first, later):
            each.release()
        states = {airflow.wait(each.run).state for each in (*first, later)}
    ran = [("bulk", e) for each in first for e in each.executions()] + [("urgent", e) for e in later.executions()]
    ran.sort(key=lambda row: row[1].started)
    evidence("order", [name for name, _ in ran])
    assert states == {"success"}
    assert {execution.service for _, execution in ran} == {"compute-1"}
    assert [name for name, _ in ran] == expected
