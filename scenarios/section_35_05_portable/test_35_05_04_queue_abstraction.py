"""Tasks name a logical queue; one table, which a Variable overrides, maps it to the executor's own queue.

Hint: `airflow variables get queue_map` shows whether the Variable overrides the table.
"""

import pytest

from labs.comparison import RESULT
from scenarios.changing import variable, wait_for_queue

DAG = "35_05_04_queue_abstraction"
KINDS = ["light", "heavy", "io"]
TABLE = {"CeleryExecutor": {"heavy": "heavy_compute", "io": "io_bound"}}
OTHER = {"CeleryExecutor": "heavy_compute", "EdgeExecutor": "site_a"}
"""A queue for light work that a worker of the lab serves; executors without queues take any name."""


@pytest.fixture(scope="module")
def routed(run_dag):
    """One run with the lab's own table."""
    return run_dag()


def test_the_table_maps_logical_to_physical(routed, executor, evidence):
    """Each kind of work went to the queue that the table has for this executor, or to the default queue."""
    expected = {kind: TABLE.get(executor, {}).get(kind, "default") for kind in KINDS}
    found = {kind: routed.one(kind).queue for kind in KINDS}
    evidence("queues", [{"logical": kind, "expected": expected[kind], "recorded": found[kind]} for kind in KINDS])
    assert found == expected, f"the queues are {found}, but on {executor} the table says {expected}"
    assert routed.xcom("report") == {"executor": executor, "routes": expected}


def test_tasks_know_only_the_logical_queue(routed, evidence):
    """What a task was given is the kind of work; it found its physical queue at run time, and logged it."""
    found = {kind: routed.xcom(kind) for kind in KINDS}
    evidence("tasks", list(found.values()))
    evidence(RESULT, {kind: given["logical"] for kind, given in found.items()})
    for kind in KINDS:
        assert found[kind]["logical"] == kind
        queue = routed.one(kind).queue
        assert f"Logical queue {kind} is the physical queue {queue}," in routed.log(kind)


def test_a_variable_moves_work_without_a_change_of_code(airflow, run_dag, routed, executor, evidence):
    """With the Variable `queue_map` the same DAG sends light work elsewhere; without it, back again."""
    before, other = routed.one("light").queue, OTHER.get(executor, "elsewhere")
    try:
        with variable(airflow, "queue_map", {executor: {"light": other}}):
            wait_for_queue(airflow, DAG, "light", other)
            moved = run_dag()
    finally:
        wait_for_queue(airflow, DAG, "light", before)
    evidence("queue of light work", {"before": before, "with the Variable": moved.one("light").queue})
    assert moved.one("light").queue == other != before
    assert f'Variable queue_map: {{"{executor}"' in moved.log("report"), "the log does not name the Variable"
