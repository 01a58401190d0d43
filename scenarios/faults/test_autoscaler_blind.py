"""What an autoscaler looks with is gone while there is much to do: workers stay as they are, and nothing is lost.

Kubernetes' contract: a HorizontalPodAutoscaler that gets no metric changes nothing. KEDA's: without its operator nobody
makes the first worker of none; what Airflow has queued waits in the broker until there is one.
Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/

Hint: `kubectl describe hpa` says which metric it does not get; `kubectl get pods -n keda` whether KEDA is there.
"""

import time

import pytest

from components.clusters.keda import works
from components.clusters.metrics_server import measured
from labs.waiting import until
from scenarios.celery import Celery
from scenarios.faulting import late_fails
from scenarios.faulting_kubernetes import ClusterFaults, KubernetesServices
from scenarios.scaling import Meter, elastic_in, rows

pytestmark = [
    pytest.mark.needs(section="35.3", because="elsewhere no worker serves the queue compute alone"),
    pytest.mark.needs(cluster="kind"),
]

DAG = "35_09_01_executor_scaling"

BLIND = 60
"""Seconds for which a HorizontalPodAutoscaler, which looks every 15, would long have done something."""


@pytest.fixture
def faults_in(namespace, airflow, evidence):
    """What can be broken in the lab as it is when it has been changed."""

    def faults(changed):
        services = KubernetesServices(namespace, changed.outputs["services"])
        celery = Celery(changed.outputs, services)
        return ClusterFaults(namespace, services, airflow, evidence, lambda _since: celery.unwell())

    return faults


def test_workers_stay_as_they_are_and_all_work_is_done_later(
    lab, airflow, namespace, celery, faults_in, timeline, evidence
):
    """As few as before while nobody looks, with a full queue; more of them when somebody does; every task ends once."""
    elastic = elastic_in(lab)
    if not elastic.bounds:
        pytest.skip("needs an autoscaler of pods: bring the lab up --with keda")
    back = {"keda": works, "kube-system": measured}[elastic.measures[0]]
    looks = Meter(celery, namespace)
    with lab.reconfigured({}, **elastic.shape) as changed:
        looks.wait(elastic.least, elastic.calm)
        looks.curve.clear()
        with faults_in(changed).add_on_lost(*elastic.measures, back=lambda: back(namespace.api)):
            run = airflow.trigger(DAG, {**elastic.burst, "tasks": 24})  # enough to outlast the fault
            timeline(run)
            began = time.time()

            def passed():
                seen = looks.look(airflow.task_instances(run))
                return (True if time.time() - began > BLIND else None), f"{seen.waiting} wait, {seen.slots} slots"

            until(passed, what=f"{BLIND} s to pass", timeout=2 * BLIND, interval=1)
        blind = list(looks.curve)

        def more():
            seen = looks.look(airflow.task_instances(run))
            return (seen.at if seen.slots > elastic.least else None), f"{seen.waiting} wait, {seen.slots} slots"

        with late_fails():
            grew = until(more, what=f"more than {elastic.least} workers", timeout=120, interval=1)
        run = airflow.wait(run, 480)
        looks.wait(elastic.least, elastic.calm)
    instances = [ti for ti in airflow.task_instances(run) if ti.task_id == "work"]
    evidence("scaled by", elastic.by)
    evidence("curve", rows(looks.curve))
    evidence("seconds from its being back until there were more", grew - blind[-1].at)
    assert {look.slots for look in blind} == {elastic.least}, "somebody has changed the workers"
    assert max(look.waiting for look in blind) > 0, "nothing waited: there was no need of more"
    assert run.state == "success", airflow.explain(run)
    assert {(ti.state, ti.try_number) for ti in instances} == {("success", 1)}
