"""Slots of a pool are never overdrawn, and how many a long task asks for decides whether short ones starve.

Airflow's contract: queued and running tasks count against their pool, each with its `pool_slots`; what finds no room
stays `scheduled`, and a task that needs fewer slots is taken before one that needs more than are free.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html

Hint: *Admin → Pools* while it runs; the scheduler's log names each task that "requires 3 slots but there are 1".
"""

import pytest

from labs.comparison import RESULT
from scenarios.changing import pool_slots
from scenarios.judge import intervals, overlap, peak, span

pytestmark = pytest.mark.needs(
    default_executor=("LocalExecutor", "CeleryExecutor", "KubernetesExecutor"),
    because="at a site a task takes as many places of the worker as slots of its pool, and the labs' workers have two",
)

SLOTS = 4
SECONDS = 8
"""How long each long task works."""

ARRANGEMENTS = {"hogged": 2, "shared_out": 3}
LONG, SHORT = ("long_1", "long_2"), ("short_1", "short_2", "short_3", "short_4")

EXPECTED = {
    "hogged": {3: 16, 4: 9, 6: 8, 8: 8, 10: 8},
    "shared_out": {3: 18, 4: 16, 6: 9, 8: 8, 10: 8},
}
"""Seconds that pools of these sizes need for two tasks of 8 s and four of 1 s, by hand."""


@pytest.fixture(scope="module")
def ran(run_dag, airflow):
    """One run in a pool of four slots."""
    with pool_slots(airflow, "default_pool", SLOTS):
        return run_dag({"seconds": SECONDS, "slots": SLOTS}, timeout=180)


@pytest.fixture(scope="module")
def asked(ran):
    """Task → the slots that Airflow recorded for it."""
    return {ti.task_id: ran.details(ti.task_id).pool_slots for ti in ran.instances}


def members(run, group, names):
    """The task instances of an arrangement."""
    return run.all(*(f"{group}.{name}" for name in names))


@pytest.mark.parametrize("group", ARRANGEMENTS)
def test_never_more_than_the_slots(ran, asked, group, evidence):
    """All slots are used at once, and never one more: by Airflow's times, by the tasks' own, and at each look."""
    tasks = members(ran, group, LONG + SHORT)
    spans = zip(intervals(tasks), tasks, strict=True)
    told = ran.xcoms(*(ti.task_id for ti in tasks))
    looks = [sum(asked[ti.task_id] for ti in look.instances if ti.state in ("queued", "running")) for look in ran.looks]
    most = {
        "as Airflow recorded": peak((start, end, asked[ti.task_id]) for (start, end), ti in spans),
        "as the tasks say": peak((each["started"], each["ended"], asked[f"{group}.{each['name']}"]) for each in told),
    }
    evidence("slots taken at once", {**most, "of": SLOTS})
    evidence("slots taken at each look of the run", looks)
    assert [asked[f"{group}.{name}"] for name in (*LONG, *SHORT)] == [ARRANGEMENTS[group]] * 2 + [1] * 4
    for how, taken in most.items():
        assert taken <= SLOTS, f"{taken} of {SLOTS} slots were taken at once, {how}"
    assert most["as Airflow recorded"] == SLOTS, f"of {SLOTS} slots no more were ever used: {most}"
    assert max(looks) <= SLOTS, f"{max(looks)} of {SLOTS} slots were taken at a look"


def test_two_long_tasks_starve_the_short_ones(ran, evidence):
    """They run together, and until one of them has ended every short task is kept back as `scheduled`."""
    longs, shorts = members(ran, "hogged", LONG), members(ran, "hogged", SHORT)
    first_end = min(ti.ended for ti in longs)
    waits = {ti.task_id: (ti.started - ti.scheduled).total_seconds() for ti in shorts}
    names = {ti.task_id for ti in longs}
    full = [look for look in ran.looks if all(ti.state == "running" for ti in look.instances if ti.task_id in names)]
    states = [{ti.state for ti in look.instances if ti.task_id in waits} for look in full]
    evidence("seconds in which both long tasks ran", overlap(*longs))
    evidence("seconds until the short tasks started", waits)
    evidence("their states while both long tasks ran", [sorted(map(str, each)) for each in states])
    assert overlap(*longs) > SECONDS / 2
    assert all(ti.started >= first_end for ti in shorts), "a short task ran beside two long ones that fill the pool"
    assert states and all(each == {"scheduled"} for each in states)
    assert ran.xcom("report")["hogged"]["behind"] == len(SHORT)


def test_slots_shared_out_starve_nobody(ran, evidence):
    """With one slot more for each long task only one of them runs, and short ones run beside it."""
    longs, shorts = members(ran, "shared_out", LONG), members(ran, "shared_out", SHORT)
    first_end = min(ti.ended for ti in longs)
    beside = [ti.task_id for ti in shorts if ti.started < first_end]
    evidence("seconds in which both long tasks ran", overlap(*longs))
    evidence("seconds until tasks started", {ti.task_id: (ti.started - ti.scheduled).total_seconds() for ti in shorts})
    evidence("short tasks beside the first long one", beside)
    assert beside, "no short task ran beside the first long one"
    assert overlap(*longs) == 0, "two long tasks that need three slots each ran in a pool of four"
    assert ran.xcom("report")["shared_out"]["behind"] < len(SHORT)


def test_the_slots_are_watched_from_within(ran, evidence):
    """The long tasks saw what is seen from outside: a full pool and four that wait, and never an overdrawn one."""
    told = {group: [each["looks"] for each in (ran.xcom(f"{group}.{name}") for name in LONG)] for group in ARRANGEMENTS}
    evidence("what the long tasks saw", told)
    assert [looks[0] for looks in told["hogged"]] == [{"taken": SLOTS, "waiting": len(SHORT)}] * 2
    assert all(look["taken"] <= SLOTS for runs in told.values() for looks in runs for look in looks)
    assert min(look["waiting"] for looks in told["shared_out"] for look in looks) < len(SHORT)


@pytest.mark.parametrize("group", ARRANGEMENTS)
def test_what_other_pools_would_change(ran, asked, group, evidence):
    """Figures of the report: the share of the slots used, and for pools of other sizes what is reckoned by hand."""
    told, tasks = ran.xcom("report")[group], members(ran, group, LONG + SHORT)
    rows, own = {row["slots"]: row for row in told["sizes"]}, {ti.task_id: ran.xcom(ti.task_id) for ti in tasks}
    seconds = {name: each["ended"] - each["started"] for name, each in own.items()}
    work = sum(asked[name] * seconds[name] for name in own)
    took = max(each["ended"] for each in own.values()) - min(each["started"] for each in own.values())
    late = sum(seconds.values()) - len(LONG) * SECONDS - len(SHORT)  # what slow cores add to what was asked for
    evidence("pools", told["sizes"])
    evidence("share of the slots used", {"by the report": told["used"], "by the slots in Airflow": work / took / SLOTS})
    evidence("seconds of work", seconds)
    for ti in tasks:
        within = ti.started.timestamp() <= own[ti.task_id]["started"] < own[ti.task_id]["ended"] <= ti.ended.timestamp()
        assert within, f"{ti.label} says that it worked when Airflow did not run it"
    assert told["used"] == pytest.approx(work / (SLOTS * took))
    assert abs(late) < SECONDS, f"the tasks worked {late:.1f} s longer than asked for"
    assert {size: row["seconds"] for size, row in rows.items()} == pytest.approx(EXPECTED[group], abs=abs(late) + 0.5)
    assert rows[SLOTS]["seconds"] <= span(tasks), "it took less than the report says it must"
    assert all(0 < row["used"] < 1.001 for row in rows.values())
    # from the size on that lets all run at once, more slots change no time, but the share that is used
    assert rows[10]["seconds"] == rows[8]["seconds"] and rows[10]["used"] < rows[8]["used"]
    assert rows[10]["mb"] >= rows[4]["mb"] > told["memory_mb"] > 0


def test_the_log_says_who_starved(ran, evidence):
    """The log of `report` has a line for each arrangement."""
    lines = [line for line in ran.log("report").splitlines() if "began only when" in line]
    told = ran.xcom("report")
    evidence("log", lines)
    evidence(RESULT, {"hogged": told["hogged"]["behind"]})
    assert [line.partition("info ")[2].partition(" short")[0] for line in lines] == [
        f"{group}: {told[group]['behind']} of 4" for group in ARRANGEMENTS
    ]


def test_a_pool_of_one_slot_is_one_process(airflow, start_probe, evidence):
    """By files of the executing side: in a pool of one slot three tasks run one after the other, each once."""
    with pool_slots(airflow, "default_pool", 1):
        probe = start_probe("probe_results")
        probe.wait_for_executions(1)
        held = sorted(str(ti.state) for ti in airflow.task_instances(probe.run))
        probe.release()
        run = airflow.wait(probe.run)
    executions = probe.executions()
    most = peak((each.started, each.ended, 1) for each in executions if each.ended)
    evidence("states while the first one ran", held)
    evidence("executions", [vars(each) for each in executions])
    assert run.state == "success", airflow.explain(run)
    assert held == ["running", "scheduled", "scheduled"]
    assert len(executions) == 3 and all(each.ended for each in executions)
    assert most == 1, f"{most} tasks ran at once in a pool of one slot"
