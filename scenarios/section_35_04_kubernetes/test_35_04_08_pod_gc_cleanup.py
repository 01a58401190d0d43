"""Which pods the executor deletes and which it keeps, for each of its settings; and how the rest is cleaned up.

Hint: `[kubernetes_executor] delete_worker_pods` and `delete_worker_pods_on_failure`, read by the scheduler.
"""

import contextlib

import pytest

from scenarios.pods import DONE

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

ALL = {("succeeds", 1), ("task_fails", 1), ("task_fails", 2), ("worker_fails", 1), ("worker_fails", 2), ("report", 1)}
"""Task and try of each pod of a run."""

SETTINGS = {
    "as-it-is": ({}, {("worker_fails", 1)}),
    "failed-ones-too": ({"kubernetes_executor.delete_worker_pods_on_failure": "True"}, set()),
    "none": ({"kubernetes_executor.delete_worker_pods": "False"}, ALL),
}
"""What is set beside the lab's own, and the pods that are kept."""


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_kept(setting, lab, run_in_pods, evidence):
    """Of six pods exactly those are there when all is quiet that the table of the DAG says."""
    options, expected = SETTINGS[setting]
    with lab.reconfigured(options) if options else contextlib.nullcontext():
        ran = run_in_pods(timeout=240)
    kept = {(life.task_id, life.try_number) for life in ran.lives if not life.gone}
    evidence("setting", options or "the lab's own, which are upstream's defaults")
    evidence("pods", [life.row() for life in ran.lives])
    assert {(life.task_id, life.try_number) for life in ran.lives} == ALL
    assert kept == expected, f"kept are {sorted(kept)}, not {sorted(expected)}"
    if setting == "none":
        assert all(life.labels.get(DONE) == "True" for life in ran.lives), f"a kept pod has no label {DONE}=True"


def test_a_failed_task_is_a_pod_that_ended_well(run_in_pods, airflow, evidence):
    """The try that raised has a pod that succeeded; the try whose worker failed has one that failed."""
    ran = run_in_pods(timeout=240)
    phases = {(life.task_id, life.try_number): life.phases()[-1] for life in ran.lives}
    tries = {ti.try_number: ti.state for ti in airflow.tries(ran.seen.one("task_fails"))}
    evidence("last phase", [{"task": task, "try": number, "phase": phase} for (task, number), phase in phases.items()])
    assert tries == {1: "failed", 2: "success"}
    assert phases["task_fails", 1] == "Succeeded", "an exception of the task failed its pod"
    assert phases["worker_fails", 1] == "Failed"
    (broken,) = [life for life in ran.of("worker_fails") if life.try_number == 1]
    assert broken.ended("breaks-once")["exitCode"] == 1
    assert ran.seen.one("worker_fails").try_number == 2


def test_the_clean_up_takes_what_has_ended(run_in_pods, services, namespace, evidence):
    """`airflow kubernetes cleanup-pods` deletes the kept pod, and no other pod of the namespace."""
    ran = run_in_pods(timeout=240)
    (kept,) = [life for life in ran.lives if not life.gone]
    before = services.states()
    at_once = ["--namespace", namespace.name, "--min-completed-minutes", "0"]  # 1 by default
    done = services.run("scheduler", ["airflow", "kubernetes", "cleanup-pods", *at_once])
    evidence("clean-up", [line for line in done.stdout.splitlines() if line.startswith("Deleting")])
    assert done.returncode == 0, done.stderr
    assert f'Deleting pod "{kept.name}"' in done.stdout
    assert namespace.pods_of(ran.seen.run) == []
    assert services.states() == before


def test_the_log_tells_how_to_look(run_in_pods, namespace):
    """The commands have this lab's namespace in them."""
    log = run_in_pods(timeout=240).log("report")
    assert f"kubectl -n {namespace.name} get pods -l dag_id=35_04_08_pod_gc_cleanup" in log
    assert f"airflow kubernetes cleanup-pods --namespace {namespace.name}" in log
