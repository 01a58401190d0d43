"""`up` with another configuration while tasks run: what must restart does, when its tasks have ended, and nothing else.

Kubernetes' contract: a Deployment whose pod template is as before has the pods of before; a pod that goes gets SIGTERM,
and its `terminationGracePeriodSeconds`. Celery's: on SIGTERM a worker takes nothing more, and ends what it runs.
Airflow's: a scheduler that starts adopts the pods of the one before. An image of yours is given by `--airflow-image`.
Sources: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#updating-a-deployment and
https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker

Hint: `./lab preview LAB --config …` says what restarts, and which property is the reason.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from labs.waiting import until
from scenarios.faulting import PATIENT, late_fails
from scenarios.pods import image_of
from scenarios.upgrading import Pods, another_image, upgraded
from stacks.catalogue import ROLES

pytestmark = pytest.mark.needs(platform="kubernetes")

WORKER, GROUP = "compute-1", "compute"

HOLD = 35
"""Seconds for which a worker that was told to go works on: more than the 30 that Kubernetes gives where nobody says."""


def images(namespace, run):
    """The image of each pod of a run, by the pod's uid."""
    return {pod["metadata"]["uid"]: image_of(pod) for pod in namespace.pods_of(run)}


@pytest.mark.needs(section="35.3", because="elsewhere no worker serves the queue compute alone")
def test_a_worker_that_changes_ends_its_task_first(lab, airflow, services, start_probe, evidence):
    """A worker gets a second slot: it alone restarts, as `preview` said, when its task has ended, which is run once."""
    first = start_probe("probe_compute", {"seconds": 240})
    first.wait_for_executions(1)
    (worker,) = services.service_pod(WORKER).parts

    def told_to_go():
        found = services.pod(worker)
        gone = found is None or "deletionTimestamp" in found["metadata"]
        return (time.time() if gone else None), "it stays"

    def let_end():
        with late_fails():
            began = until(told_to_go, what=f"{WORKER} to be told to go", timeout=180, interval=0.3)

        def held():
            assert services.pod(worker), f"{WORKER} went after {time.time() - began:.0f} s, with its task"
            return (True if time.time() - began > HOLD else None), "it works on"

        try:
            until(held, what=f"{HOLD} s to pass", timeout=2 * HOLD, interval=0.5)
            return [each.task for each in first.unended()]
        finally:
            first.release()

    with ThreadPoolExecutor(1) as beside:
        ending = beside.submit(let_end)
        with upgraded(lab, services, {}, workers={GROUP: {"concurrency": 2}}) as upgrade:
            left = ending.result()
            with late_fails():
                run = airflow.wait(first.run, 120)
                second = start_probe("probe_compute", {"seconds": 240})
                at_once = second.wait_for_full_slots(2)
            second.release()
            later = airflow.wait(second.run, 120)

    evidence("preview", upgrade.rows())
    evidence("services with other pods", sorted(upgrade.replaced))
    evidence("tasks", [*first.account(), *second.account()])
    assert upgrade.said == upgrade.done, "up did something else than preview had said"
    assert upgrade.workloads == upgrade.replaced == {WORKER}
    assert left == [first.executions()[0].task], "its task had ended before it was told to go: nothing is shown"
    assert run.state == "success", airflow.explain(run)
    assert set(first.outcome().values()) == {("success", 1, 1, 1)}, "a task was lost, or ran twice"
    assert len(at_once) == 2 and later.state == "success", "the second slot is not there"


@pytest.mark.needs(executor="KubernetesExecutor", section="35.4")
def test_task_pods_outlive_the_scheduler_that_made_them(lab, airflow, namespace, services, start_probe, evidence):
    """An option of the KubernetesExecutor changes: the scheduler restarts and adopts the pods: one execution each."""
    option = {"kubernetes_executor.worker_pods_creation_batch_size": "5"}
    probe = start_probe("probe_compute", {"seconds": 400})
    probe.wait_for_executions(3, 90)
    before = images(namespace, probe.run)
    with upgraded(lab, services, option) as upgrade, late_fails():
        left, after = probe.unended(), images(namespace, probe.run)
        probe.release()
        run = airflow.wait(probe.run, 240)
        known = services.run("scheduler", ["env"]).stdout
    evidence("preview", upgrade.rows())
    evidence("services with other pods", sorted(upgrade.replaced))
    evidence("tasks", probe.account())
    assert upgrade.said == upgrade.done, "up did something else than preview had said"
    assert upgrade.workloads == upgrade.replaced == {"scheduler"}
    assert "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_PODS_CREATION_BATCH_SIZE=5\n" in known, "the option is not in force"
    assert len(left) == 3, "a task had ended before the lab was another: nothing is shown"
    assert after == before, "other pods were made"
    assert run.state == "success", airflow.explain(run)
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}, "a task was lost, or ran twice"


@pytest.mark.needs(executor="KubernetesExecutor", section="35.4")
@pytest.mark.needs(cluster="kind", because="elsewhere nodes fetch an image from a registry")
def test_tasks_end_in_the_image_that_they_began_in(lab, airflow, namespace, services, start_probe, evidence):
    """Airflow has another image: its services restart, tasks that run end in their pods, and the next get the other."""
    with another_image(namespace.airflow_image()) as image:
        first = start_probe("probe_compute", {"seconds": 400})
        first.wait_for_executions(3, 90)
        before = images(namespace, first.run)
        with upgraded(lab, services, PATIENT, airflow_image=image) as upgrade, late_fails():
            left, after = first.unended(), images(namespace, first.run)
            first.release()
            run = airflow.wait(first.run, 120)
            second = start_probe("probe_serial", {"seconds": 120})
            second.wait_for_executions(1, 90)
            own = images(namespace, second.run)
            second.release()
            later = airflow.wait(second.run, 120)
            known = services.run("scheduler", ["env"]).stdout
    evidence("preview", upgrade.rows())
    evidence("services with other pods", sorted(upgrade.replaced))
    evidence("images", {"of tasks that ran": sorted(set(after.values())), "of the next": sorted(set(own.values()))})
    evidence("tasks", [*first.account(), *second.account()])
    assert upgrade.said == upgrade.done, "up did something else than preview had said"
    airflows = {each["name"] for role in ROLES for each in lab.outputs["services"][role]}
    assert upgrade.workloads == upgrade.replaced == airflows
    assert "LAB_IMAGE=another\n" in known, "the scheduler has the image of before"
    assert len(left) == 3, "a task had ended before the lab was another: nothing is shown"
    assert after == before, "other pods were made"
    assert len(own) == 1 and not set(own.values()) & set(before.values()), "the next task had the image of before"
    assert (run.state, later.state) == ("success", "success"), airflow.explain(run)
    assert set(first.outcome().values()) == {("success", 1, 1, 1)}, "a task was lost, or ran twice"


def test_an_up_that_asks_for_nothing_else_touches_nothing(lab, services, evidence):
    """Neither does it, nor does `preview` list anything, and every pod is the one of before."""
    lab.up()  # which sees the pods that faults have replaced
    before, said = Pods.now(services), lab.preview()
    lab.up()
    evidence("unchanged", len(said))
    assert [step for step in said if step.operation != "same"] == []
    assert before.replaced(Pods.now(services)) == set()
