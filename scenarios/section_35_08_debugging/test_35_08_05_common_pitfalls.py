"""Five pitfalls: each wrong task fails with the error that it is there to show, each right one succeeds.

Hint: the end of a wrong task's log has the error; the table of `report` has the pairs.
"""

import tempfile
from pathlib import Path

import pytest

from scenarios.judge import overlap, sequential

pytestmark = pytest.mark.needs(default_executor=("CeleryExecutor", "KubernetesExecutor"), section="35.8")

on_workers = pytest.mark.needs(default_executor="CeleryExecutor")

in_pods = pytest.mark.needs(default_executor="KubernetesExecutor")

ERRORS = {
    "reads_a_file": "FileNotFoundError",
    "expects_a_pod": "KeyError: 'AIRFLOW_IS_K8S_EXECUTOR_POD'",
    "loads_everything": "MemoryError",
    "meets_first": "TimeoutError: second did not come",
    "meets_second": "TimeoutError: first did not come",
}
RIGHT = ("reads_an_xcom", "asks_where_it_is", "works_in_pieces", "waits_in_an_io_slot", "comes_first", "comes_second")


@pytest.fixture(scope="module")
def ran(run_dag):
    """One run: it fails, because of its wrong tasks."""
    return run_dag(state="failed", timeout=180)


@on_workers
def test_each_wrong_task_fails_as_it_should(ran, airflow, evidence):
    """With its own error, and no other task fails but the watcher."""
    found = {
        name: next((line for line in airflow.log(ran.one(name)).splitlines() if error in line), "")
        for name, error in ERRORS.items()
    }
    evidence("errors", found)
    assert all(found.values()), f"not the error that was expected: {found}"
    assert {ti.task_id for ti in ran.instances if ti.state == "failed"} == {*ERRORS, "watcher"}


@on_workers
def test_each_right_task_does_the_same_work(ran, evidence):
    """The value arrives, the sum is right within the same memory, the second comes after the first."""
    told = {name: ran.xcom(name) for name in ("reads_an_xcom", "works_in_pieces", "asks_where_it_is", "comes_second")}
    evidence("told", told)
    assert {ti.state for ti in ran.all(*RIGHT)} == {"success"}
    assert told["reads_an_xcom"] == 42
    assert told["works_in_pieces"] == 8_000_000 * 7_999_999 // 2
    assert told["asks_where_it_is"] == {"pod": False}
    assert told["comes_second"] == "here you are"


@on_workers
def test_the_workers_say_so_too(ran, celery, evidence):
    """Each task is in the log of the worker that Airflow recorded, once, and no worker took another one."""
    taken = [(t.task_id, t.worker) for t in celery.taken(ran.run)]
    evidence("taken", taken)
    assert sorted(taken) == sorted((ti.task_id, ti.hostname) for ti in ran.instances)


@on_workers
def test_the_file_was_on_another_worker(ran, evidence):
    """Writer and reader ran on different workers; nothing of the file is left."""
    hosts = {ti.task_id: ti.hostname for ti in ran.all("writes", "reads_a_file", "reads_an_xcom")}
    evidence("workers", hosts)
    assert hosts == {"writes": "io-1", "reads_a_file": "heavy-1", "reads_an_xcom": "heavy-1"}
    left = [str(path) for path in Path(tempfile.gettempdir(), "35_08_05").rglob("result.txt")]
    assert not [path for path in left if ran.run.run_id.replace(":", "-") in path], f"left over: {left}"


@on_workers
def test_the_slot_is_why_they_never_met(ran, evidence):
    """Both ran on the worker with one slot, one after the other, each for as long as its patience."""
    both = ran.all("meets_first", "meets_second")
    evidence("meetings", [{"task": ti.task_id, "worker": ti.hostname, "seconds": ti.seconds} for ti in both])
    assert {ti.hostname for ti in both} == {"compute-1"}
    assert sequential(both)
    assert all(ti.seconds >= 3 for ti in both)


@on_workers
def test_waste_is_no_error(ran, evidence):
    """The task that held the slot for computing computed next to nothing, and was a success."""
    busy, ti = ran.xcom("waits_in_a_cpu_slot"), ran.one("waits_in_a_cpu_slot")
    evidence("share of its slot's CPU", busy)
    assert (ti.state, ti.hostname) == ("success", "compute-1")
    assert 0 <= busy < 0.2
    assert ran.xcom("report")["busy"] == busy


@pytest.fixture(scope="module")
def ran_in_pods(run_in_pods):
    """One run in pods, which start at different times: tasks that wait for each other have patience."""
    return run_in_pods({"patience": 60}, state="failed", timeout=240)


@in_pods
def test_in_pods_two_of_them_fail_as_well(ran_in_pods, evidence):
    """The Kubernetes half: a file of another pod, and memory; each with its own error, in the pod's own words."""
    expected = {task: ERRORS[task] for task in ("reads_a_file", "loads_everything")}
    found = {task: error in ran_in_pods.log(task) for task, error in expected.items()}
    failed = {ti.task_id for ti in ran_in_pods.seen.instances if ti.state == "failed"}
    evidence("failed", sorted(failed))
    assert all(found.values()), f"not the error that was expected: {found}"
    assert failed == {*expected, "watcher"}
    assert ran_in_pods.one("writes").name != ran_in_pods.one("reads_a_file").name


@in_pods
def test_in_pods_the_others_are_no_pitfalls(ran_in_pods, evidence):
    """There is a pod where one was expected, and who waits for another meets it: each has a pod of its own."""
    meetings = ran_in_pods.seen.all("meets_first", "meets_second")
    evidence("meetings", [{"task": ti.task_id, "pod": ti.hostname, "seconds": ti.seconds} for ti in meetings])
    assert ran_in_pods.seen.one("expects_a_pod").state == "success"
    assert ran_in_pods.xcom("asks_where_it_is") == {"pod": True}
    assert {ti.state for ti in meetings} == {"success"}
    assert overlap(*meetings) > 0, "they met without being there at the same time"
    assert len({ti.hostname for ti in meetings}) == 2


@in_pods
def test_in_pods_the_right_ones_do_the_same_work(ran_in_pods, evidence):
    """The value arrives, the sum is right within the same memory, the second comes after the first."""
    told = {name: ran_in_pods.xcom(name) for name in ("reads_an_xcom", "works_in_pieces", "comes_second")}
    evidence("told", told)
    assert {ti.state for ti in ran_in_pods.seen.all(*RIGHT)} == {"success"}
    assert told == {
        "reads_an_xcom": 42,
        "works_in_pieces": 8_000_000 * 7_999_999 // 2,
        "comes_second": "here you are",
    }
