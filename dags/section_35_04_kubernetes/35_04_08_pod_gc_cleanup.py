"""# 35.4.8 Which pods are deleted, and which are kept

The executor deletes pods as they end. Two settings of `[kubernetes_executor]`, read by the scheduler, say which:

| `delete_worker_pods` | `…_on_failure` | the task succeeded | the *task* failed | the *worker* failed |
| --- | --- | --- | --- | --- |
| True (default) | False (default) | deleted | deleted | **kept** |
| True | True | deleted | deleted | deleted |
| False | – | **kept** | **kept** | **kept** |

The fourth column is what surprises. A task that raises an exception is a *success* of its pod: the process that
supervises it has done its work, has reported the failure, and ends with 0. Only where the container itself came to
grief (out of memory, evicted, no image, a failing init container: 35.4.9) the pod is `Failed`, and worth keeping.
With its pod a task's log is gone too, so an exception's traceback outlives its pod only with remote logging.

Kept pods that the executor is done with carry the label `airflow_executor_done=True`, where `delete_worker_pods` is
False. They use no CPU or memory, but they are listed, count against a quota of pods, and never go by themselves:

    airflow kubernetes cleanup-pods --namespace … --min-pending-minutes 30      # hourly, as a CronJob
    kubectl delete pods -l kubernetes_executor=True --field-selector status.phase=Failed

The first one takes pods that have ended, and those that have been `Pending` for long; never a running one. A pod that
is deleted by hand while it runs fails its task, which is retried if it has `retries`.

**What to look for**: when the run is over, `kubectl get pods -l dag_id=35_04_08_pod_gc_cleanup`: of six pods one is
left, the first try of `worker_fails`. `kubectl get events` tells for an hour of those that are gone.
"""

import logging
import socket
import time
from datetime import timedelta

from airflow.sdk import Param, conf, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

IMAGE = "{}:{}".format(
    conf.get("kubernetes_executor", "worker_container_repository", fallback=""),
    conf.get("kubernetes_executor", "worker_container_tag", fallback=""),
)


def breaks_once():
    """The `executor_config` of a pod whose init container fails at the first try of the task."""
    safe = k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        run_as_non_root=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )
    label = k8s.V1ObjectFieldSelector(field_path="metadata.labels['try_number']")
    init = k8s.V1Container(
        name="breaks-once",
        image=IMAGE,
        image_pull_policy="IfNotPresent",
        command=["/bin/sh", "-c", 'echo "this is try $TRY"; test "$TRY" != 1'],
        env=[k8s.V1EnvVar(name="TRY", value_from=k8s.V1EnvVarSource(field_ref=label))],
        security_context=safe,
        resources=k8s.V1ResourceRequirements(
            requests={"cpu": "20m", "memory": "16Mi"}, limits={"cpu": "200m", "memory": "64Mi"}
        ),
    )
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], init_containers=[init])
    return {"pod_override": k8s.V1Pod(spec=spec)}


@dag(
    dag_id="35_04_08_pod_gc_cleanup",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "seconds": Param(0, type="number", minimum=0, maximum=600, description="how long `succeeds` runs"),
    },
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
    doc_md=__doc__,
)
def pod_gc_cleanup():
    @task
    def succeeds(params=None):
        """Its pod is deleted as soon as it has ended, unless `delete_worker_pods` is False."""
        log.info("My pod is %s", socket.gethostname())
        time.sleep(params["seconds"])  # time enough to delete it by hand, if you like
        return socket.gethostname()

    @task
    def task_fails(ti=None):
        """The first try raises: the task has failed, but its pod ends well, and is treated like any other."""
        log.info("My pod is %s", socket.gethostname())
        if ti.try_number == 1:
            raise RuntimeError("this task fails once; its pod does not")
        return socket.gethostname()

    @task(executor_config=breaks_once())
    def worker_fails(ti=None):
        """The first try does not come this far: an init container fails, and so its pod, which is kept."""
        log.info("My pod is %s; that of try 1 is kept: kubectl describe it", socket.gethostname())
        return {"pod": socket.gethostname(), "try": ti.try_number}

    @task
    def report(pods, ti=None):
        """What the settings say here, and what is to be seen of it when the run is over."""
        settings = {
            key: conf.get("kubernetes_executor", key, fallback="the scheduler's")
            for key in ("delete_worker_pods", "delete_worker_pods_on_failure", "namespace")
        }
        log.info("[kubernetes_executor] as this pod knows it (the scheduler's counts): %s", settings)
        namespace = settings["namespace"]
        log.info("What is kept:    kubectl -n %s get pods -l dag_id=%s", namespace, ti.dag_id)
        log.info("Why it failed:   kubectl -n %s logs … -c breaks-once, and describe pod …", namespace)
        log.info("What there was:  kubectl -n %s get events --sort-by=.lastTimestamp", namespace)
        log.info("Clean up:        airflow kubernetes cleanup-pods --namespace %s", namespace)
        log.info("                 but for those of the last minute, unless with --min-completed-minutes 0")
        return {"settings": settings, "pods": pods}

    report([succeeds(), task_fails(), worker_fails()])


pod_gc_cleanup()
