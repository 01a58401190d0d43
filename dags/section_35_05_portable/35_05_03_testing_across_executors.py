"""# 35.5.3 Testing a DAG for several executors

Four layers, cheapest first:

| layer | what runs | how |
| --- | --- | --- |
| unit tests | plain functions, no executor | `python -m unittest` with this module; the task `unit_tests` |
| mock executor | the jobs, on an executor that is 15 lines long | the task `mock_executor` |
| one process | the whole DAG, no executor and no scheduler | `python` on this file: `dag.test()`, as below |
| integration | the whole DAG on the real executor | `./lab up local --verify`, then the next lab |

`dag.test()` writes into a database like any run, and looks for the DAG in `[core] dags_folder`. Never give it that of a
deployment, whose scheduler would run the tasks too; SQLite will do:

    export AIRFLOW_HOME=$(mktemp -d) AIRFLOW__CORE__DAGS_FOLDER=$PWD
    airflow db migrate && python 35_05_03_testing_across_executors.py

CI repeats the last layer, one job per executor, and compares what the DAG returned:

    strategy:
      matrix:
        lab: [local, celery, kubernetes, edge]
    steps:
      - run: ./lab up ${{ matrix.lab }} --verify

**What to look for**: `compare` finds the same result from all layers. It is also what the CI jobs compare.
"""

import logging
import unittest

from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

ORDERS = {"1001": 301.27, "1002": 433.21, "1003": 502.22}
CI_MATRIX = {
    "local": "LocalExecutor",
    "celery": "CeleryExecutor",
    "kubernetes": "KubernetesExecutor",
    "edge": "EdgeExecutor",
}


def total(orders):
    """The logic under test: a plain function, so that a test needs no Airflow to call it."""
    return round(sum(orders.values()), 2)


class MockExecutor:
    """An executor's contract, nothing else: take jobs, run up to `slots` per heartbeat, report events."""

    def __init__(self, slots):
        self.slots, self.queued, self.results, self.events = slots, {}, {}, {}

    def queue(self, key, job):
        self.queued[key] = job

    def heartbeat(self):
        for key in list(self.queued)[: self.slots]:
            try:
                self.results[key] = self.queued.pop(key)()
                self.events[key] = "success"
            except Exception:
                self.events[key] = "failed"


class Tests(unittest.TestCase):
    """They know no executor: that is why they hold for all of them."""

    def test_total(self):
        self.assertEqual(total(ORDERS), 1236.7)

    def test_no_orders(self):
        self.assertEqual(total({}), 0)

    def test_a_failed_job_is_reported(self):
        executor = MockExecutor(slots=1)
        executor.queue("broken", lambda: total(None))
        executor.heartbeat()
        self.assertEqual(executor.events, {"broken": "failed"})


@dag(
    dag_id="35_05_03_testing_across_executors",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    doc_md=__doc__,
)
def testing_across_executors():
    @task
    def unit_tests():
        """Runs the unit tests of this file; fails when one of them fails."""
        outcome = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(outcome)
        for test, reason in outcome.failures + outcome.errors:
            log.error("%s: %s", test, reason)
        if not outcome.wasSuccessful():
            raise AssertionError("a unit test failed: see the lines above")
        log.info("%s unit tests passed; none of them needed an executor.", outcome.testsRun)
        return outcome.testsRun

    @task
    def mock_executor():
        """The same jobs on one slot and on three: other heartbeats, same results."""
        heartbeats, results = {}, []
        for slots in (1, 3):
            executor = MockExecutor(slots)
            for day in ("monday", "tuesday", "wednesday"):
                executor.queue(day, lambda: total(ORDERS))
            heartbeats[slots] = 0
            while executor.queued:
                executor.heartbeat()
                heartbeats[slots] += 1
            log.info("%s slot(s): %s heartbeats, %s", slots, heartbeats[slots], executor.events)
            results.append(executor.results)
        if results[0] != results[1]:
            raise AssertionError(f"the number of slots changed the results: {results}")
        return {"heartbeats": list(heartbeats.values()), "total": results[0]["monday"]}

    @task
    def integration():
        """The same logic as a task, on the executor of this deployment: its result travels by XCom."""
        log.info("Running on [core] executor = %s", conf.get("core", "executor"))
        return total(ORDERS)

    @task
    def ci_matrix():
        """The integration tests that a CI runs, and which of them this deployment can stand for."""
        here = conf.get("core", "executor").split(",")[0]
        for lab, executor in CI_MATRIX.items():
            mark = "   ◀ this deployment" if executor in here else ""
            log.info("%-10s ./lab up %s --verify%s", lab, lab, mark)
        return [lab for lab, executor in CI_MATRIX.items() if executor in here]

    @task
    def compare(tests, mock, real, covered):
        """One result from every layer."""
        log.info("%s unit tests, mock executor: %s, real executor: %s", tests, mock["total"], real)
        if mock["total"] != real:
            raise AssertionError(f"the real executor returned {real}, the mock executor {mock['total']}")
        log.info("The same result. This run covers the CI job of: %s", covered)
        return {"unit_tests": tests, "total": real, "heartbeats": mock["heartbeats"], "covered": covered}

    compare(unit_tests(), mock_executor(), integration(), ci_matrix())


this_dag = testing_across_executors()

if __name__ == "__main__":
    this_dag.test()
