"""# 35.5.5 Resources, said once

Tasks say their *size*, `small` or `large`. One function turns it into what the executor in use understands:

| executor | a large task gets |
| --- | --- |
| KubernetesExecutor | requests and limits of its pod |
| CeleryExecutor | the queue of the large workers |
| LocalExecutor, and any other | more slots of a pool, so that fewer of them run at once |

The pool is `default_pool`, as it always exists: a task in a pool that does not exist is never scheduled. It
has 128 slots, more than this DAG takes; shrink it to see it work, then put it back:

    airflow pools set default_pool 2 "one large task at a time"

**What to look for**: *Pool slots*, *Queue* and *Executor config* in the details of the task instances; with
two slots, large tasks one after the other.
"""

import logging
import os
import time

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

SIZES = {
    "small": {"slots": 1, "queue": "default", "cpu": "100m", "memory": "256Mi"},
    "large": {"slots": 2, "queue": "heavy_compute", "cpu": "200m", "memory": "384Mi"},
}


def default_executor():
    """The class name of the first executor in `[core] executor`: it runs the tasks that name none."""
    return conf.get("core", "executor").split(",")[0].strip().split(":")[-1].split(".")[-1]


def pod(cpu, memory):
    """A pod that requests this much for the container that runs the task, which is always called base."""
    from kubernetes.client import models as k8s  # takes seconds: not at the top, where every task would pay

    needs = k8s.V1ResourceRequirements(requests={"cpu": cpu, "memory": memory}, limits={"memory": "1Gi"})
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=needs)]))


def resources(size):
    """The operator arguments that ask the executor in use for a task of this size."""
    need = SIZES[size]
    match default_executor():
        case "KubernetesExecutor":
            return {"executor_config": {"pod_override": pod(need["cpu"], need["memory"])}}
        case "CeleryExecutor":
            return {"queue": need["queue"]}
        case _:
            return {"pool": "default_pool", "pool_slots": need["slots"]}


@dag(
    dag_id="35_05_05_resource_specification",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    params={
        "seconds": Param(3, type="number", minimum=0, maximum=60, description="how long each task works"),
    },
    doc_md=__doc__,
)
def resource_specification():
    @task
    def work(size, params=None, ti=None):
        """Says its size; what that means was decided when the file was parsed."""
        started = time.time()
        got = {"pool": ti.task.pool, "pool_slots": ti.task.pool_slots, "queue": ti.queue}
        log.info("A %s task on %s: %s", size, default_executor(), got)
        time.sleep(params["seconds"])
        return {"size": size, "pid": os.getpid(), **got, "started": started, "ended": time.time()}

    @task
    def report(done):
        """What each task asked for, and whether the large ones ran at the same time."""
        executor = default_executor()
        for size in SIZES:
            log.info("%s: %s asks for it by %s", size, executor, sorted(resources(size)))
        one, other = (each for each in done if each["size"] == "large")
        together = max(one["started"], other["started"]) < min(one["ended"], other["ended"])
        log.info("The two large tasks ran %s.", "at the same time" if together else "one after the other")
        return {"executor": executor, "adapted": sorted(resources("large")), "large_together": together}

    tasks = [("small", 1), ("small", 2), ("large", 1), ("large", 2)]
    report([work.override(task_id=f"{size}_{number}", **resources(size))(size) for size, number in tasks])


resource_specification()
