"""Each kind of step has a queue and a worker made for it, so that steps of several pipelines overlap.

Hint: the bars in the log of `report` show it; `lab status` shows whether the workers `io-1` and `compute-1` run.
"""

import pytest

from scenarios.judge import max_concurrent, overlap, sequential, span
from stacks.catalogue import find_lab

pytestmark = pytest.mark.needs(executor="CeleryExecutor", section="35.3")

SOURCES = 4
WAITING, COMPUTING = ("pipeline.extract", "pipeline.load"), ("pipeline.transform",)


@pytest.fixture(scope="module")
def pipelines(run_dag):
    """A run with four sources."""
    return run_dag({"sources": SOURCES, "wait": 3, "cpu_seconds": 1}, timeout=240)


def test_each_step_goes_to_the_worker_made_for_it(pipelines, celery, evidence):
    """Transformations run on the worker of `compute`, all other steps on that of `io_bound`; the logs say so too."""
    steps = pipelines.all(*WAITING, *COMPUTING)
    logged = {(t.task_id, t.map_index): t.worker for t in celery.taken(pipelines.run)}
    evidence("steps", [{"step": ti.label, "queue": ti.queue, "worker": ti.hostname} for ti in steps])
    assert len(steps) == 3 * SOURCES
    for ti in steps:
        wanted = ("compute", "compute-1") if ti.task_id in COMPUTING else ("io_bound", "io-1")
        assert (ti.queue, ti.hostname) == wanted, f"{ti.label} went to {ti.queue} and ran on {ti.hostname}"
        assert logged[ti.task_id, ti.map_index] == ti.hostname, f"{ti.label} is in the log of another worker"


def test_each_worker_runs_as_many_as_its_slots(pipelines, lab, evidence):
    """Transformations never overlap: their worker has one slot; of the steps that wait, two run at once."""
    workers = find_lab(lab.outputs["lab"]).workers
    waiting, computing = pipelines.all(*WAITING), pipelines.all(*COMPUTING)
    evidence("at once", {"io-1": max_concurrent(waiting), "compute-1": max_concurrent(computing)})
    assert sequential(computing), "two transformations ran at once"
    assert max_concurrent(computing) == workers["compute"].concurrency
    assert max_concurrent(waiting) == workers["io"].concurrency, "the steps that wait did not use each slot, or more"


def test_the_pipelines_overlap(pipelines, evidence):
    """While one source is transformed, others are extracted or loaded, so all of them take less than one by one."""
    waiting, computing = pipelines.all(*WAITING), pipelines.all(*COMPUTING)
    together, one_by_one = span([*waiting, *computing]), sum(ti.seconds for ti in [*waiting, *computing])
    shared = sum(overlap(a, b) for a in computing for b in waiting)
    evidence("seconds", {"together": together, "one by one": one_by_one, "transforming while waiting": shared})
    assert together < one_by_one, "the pipelines took as long as one after the other"
    assert shared > 0, "no transformation ran while a source was waited for"


def test_the_report_says_what_the_workers_did(pipelines, evidence):
    """The table of `report` has each worker with its steps, and no more at once than Airflow recorded."""
    told = {name.partition("@")[0]: row for name, row in pipelines.xcom("report")["workers"].items()}
    evidence("told", told)
    assert {name: (row["queues"], row["steps"], row["tasks"]) for name, row in told.items()} == {
        "compute-1": (["compute"], ["transform"], SOURCES),
        "io-1": (["io_bound"], ["extract", "load"], 2 * SOURCES),
    }
    assert told["compute-1"]["most_at_once"] == 1
    assert told["io-1"]["most_at_once"] <= 2
