"""The image of task pods is not to be had: tasks fail with a cause, are not retried for ever, and recover with it.

Airflow's contract: a pod whose image cannot be pulled (`ErrImagePull`, one of `[kubernetes_executor]
worker_pod_pending_fatal_container_state_reasons`) has failed; as its task has not begun, it is tried once more without
a retry of the task (`pod_launch_failure_retries`).
Source: https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/configurations-ref.html

Hint: `kubectl describe pod`, the events at the end.
"""

import pytest

from scenarios.faulting import late_fails
from scenarios.pods import cause

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

DAG = "35_01_02_portable_dag"


def test_tasks_fail_with_a_cause_and_recover_with_the_image(lab, airflow, faults, namespace, start_in_pods, evidence):
    """The pods never run, and say why; with the image back, the same DAG runs."""
    with late_fails():
        with faults.image_missing(lab) as fault:
            busy = start_in_pods(DAG, "")
            run = airflow.wait(busy.run, 240)
            lives = busy.history.lives(busy.run)
            causes = [cause(life, namespace.events(life.uid)) for life in lives]
            fault.prove("landed", "; ".join({each.proof for each in causes}))
        later = airflow.wait(airflow.trigger(DAG), 180)
    evidence("causes", [{"pod": life.name, **vars(each)} for life, each in zip(lives, causes, strict=True)])
    assert run.state == "failed"
    assert lives and {each.kind for each in causes} == {"image"}
    assert all(life.phases() == ["Pending"] for life in lives), "a pod ran without its image"
    retries = int(lab.outputs["options"].get("kubernetes_executor.pod_launch_failure_retries", 1))
    tasks = len({life.label for life in lives})
    assert len(lives) == (1 + retries) * tasks, f"{len(lives)} pods were made for {tasks} tasks"
    assert later.state == "success", airflow.explain(later)
