"""# 35.5.2 Executor settings only where they apply

`executor_config` is read by the executor, in the scheduler: it must be known when the file is parsed. So
the file asks `[core] executor` while it is parsed, and falls back step by step:

| this deployment | `executor_config` of `heavy` |
| --- | --- |
| lists KubernetesExecutor, and its client is installed | a `pod_override` with requests and limits |
| lists KubernetesExecutor, client missing | `{}`: the pod template's resources apply |
| any other executor, known or not | `{}`: the executor's default behaviour |

Other executors ignore a `pod_override`, so a list such as `LocalExecutor,KubernetesExecutor` is safe. Workers
parse this file too: give them the same `[core] executor`.

**What to look for**: the decision in the log of `report`; on Kubernetes, the resources in `kubectl describe
pod`.
"""

import logging
from importlib.util import find_spec

from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")


def configured_executors():
    """The class names in `[core] executor`, which holds names, module paths and `alias:path`, by commas."""
    return [name.strip().split(":")[-1].split(".")[-1] for name in conf.get("core", "executor").split(",")]


def pod_resources(cpu, memory):
    """The `executor_config` that asks for a larger pod, or `{}` where nobody would read it."""
    if "KubernetesExecutor" not in configured_executors():
        return {}
    try:  # here, not at the top: this import takes seconds, and each task of each executor would pay for it
        from kubernetes.client import models as k8s
    except ImportError:
        return {}
    resources = k8s.V1ResourceRequirements(requests={"cpu": cpu, "memory": memory}, limits={"memory": "1Gi"})
    base = k8s.V1Container(name="base", resources=resources)
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))}


@dag(
    dag_id="35_05_02_conditional_executor_config",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    doc_md=__doc__,
)
def conditional_executor_config():
    @task
    def light():
        """Needs nothing special: no `executor_config` at all."""
        log.info("Runs with the executor's defaults.")
        return sum(range(1_000))

    @task(executor_config=pod_resources(cpu="200m", memory="384Mi"))
    def heavy():
        """Asks for a larger pod where there are pods, and runs as it is everywhere else."""
        log.info("Same code, same result, with or without a pod of my size.")
        return sum(range(1_000_000))

    @task
    def report(light, heavy, ti=None):
        """What was detected when the file was parsed, and what came of it."""
        executors, client = configured_executors(), find_spec("kubernetes") is not None
        config = ti.task.dag.get_task("heavy").executor_config
        log.info("Configured: %s. Kubernetes client installed: %s.", executors, client)
        log.info("heavy got: %s", "a pod_override" if config else "{}, the default behaviour")
        log.info("Results: %s and %s, the same on every executor.", light, heavy)
        return {
            "executors": executors,
            "kubernetes_client": client,
            "applied": bool(config),
            "results": [light, heavy],
        }

    report(light(), heavy())


conditional_executor_config()
