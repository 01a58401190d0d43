"""# 35.4.9 A pod has failed: where to look

Airflow knows little of a pod that came to grief: the task has no log when it never started, and none that outlives
its pod without remote logging, which `./lab up kubernetes --with log-store` has. Kubernetes knows more, for as long as
the pod is kept, and for an hour in its events:

    kubectl get pods -l dag_id=…,task_id=…      1. is there a pod? STATUS is the first hint
    kubectl describe pod …                      2. State, Last State, Exit Code; Events, the last ones first
    kubectl logs … -c base                      3. what it said; `-c init-container` for another one
    kubectl logs deploy/airflow-scheduler       4. no pod at all? Then its creation was refused: the answer is here

| task | STATUS | what happened | what to do |
| --- | --- | --- | --- |
| `raises` | `Completed`, then gone | an exception in the task: the pod is fine | read the task's log |
| `out_of_memory` | `OOMKilled` | more memory than `limits.memory` | a higher limit, or less at once |
| `image_missing` | `ErrImagePull`, `ImagePullBackOff` | no such image, or no right to it | the name, a pull secret |
| `init_fails` | `Init:Error` | an init container ended with an error: `base` never started | its log: `-c broken` |

**OOMKilled.** With control groups version 2 the kernel kills the whole container, and exit code 137 (128 + 9, SIGKILL)
is the pod's. With version 1 it kills the largest process, which is the task; the supervisor above it survives,
reports the task as failed ("Process terminated by signal. Likely out of memory error"), and the pod may even end
well. `reason: OOMKilled` stands in the container's state either way.

**ImagePullBackOff.** The kubelet would try for ever, ever less often. The executor does not wait: at the first
`ErrImagePull` it counts the pod as failed before the task has begun, makes one more (`[kubernetes_executor]
pod_launch_failure_retries`), then fails the task. Both pods stay `Pending`: delete them (35.4.8).

**What to look for**: `where_to_look` asks the Kubernetes API what `kubectl` would ask, for each of these pods, and its
log is the report. The run fails, as its tasks do.
"""

import logging
import time

from airflow.sdk import Param, conf, dag, task
from kubernetes.client import CoreV1Api
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

IMAGE = "{}:{}".format(
    conf.get("kubernetes_executor", "worker_container_repository", fallback=""),
    conf.get("kubernetes_executor", "worker_container_tag", fallback=""),
)
MISSING = "localhost:1/no-such-image:1.0"
"""Nothing listens on port 1 of a node, so that this fails at once on any network."""


def override(base=None, **spec):
    """The `executor_config` of a pod that differs from the template like that."""
    metadata = spec.pop("metadata", None)
    container = k8s.V1Container(name="base", **(base or {}))
    return {"pod_override": k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=[container], **spec))}


def limited(memory):
    """A pod that gets no more memory than that."""
    resources = k8s.V1ResourceRequirements(
        requests={"cpu": "50m", "memory": memory}, limits={"cpu": "1", "memory": memory}
    )
    return override({"resources": resources})


def broken_init():
    """A pod whose init container ends with 3."""
    safe = k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        run_as_non_root=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )
    size = k8s.V1ResourceRequirements(
        requests={"cpu": "20m", "memory": "16Mi"}, limits={"cpu": "200m", "memory": "64Mi"}
    )
    init = k8s.V1Container(
        name="broken",
        image=IMAGE,
        image_pull_policy="IfNotPresent",
        command=["/bin/sh", "-c", "echo 'the database is not there'; exit 3"],
        security_context=safe,
        resources=size,
    )
    return override(init_containers=[init])


def reader():
    """A pod that may ask the Kubernetes API about pods, with a service account that these labs have for it."""
    labels = k8s.V1ObjectMeta(labels={"reaches": "kubernetes-api"})  # the network policy lets such pods through
    return override(metadata=labels, service_account_name="airflow-pod-reader", automount_service_account_token=True)


def kubernetes_api():
    """The API of the cluster in which this runs, with the token of the pod's service account."""
    from kubernetes.config import load_incluster_config

    load_incluster_config()
    return CoreV1Api()


def states(pod):
    """The state of each container of a pod, as `kubectl describe` has it."""
    found = {}
    for each in [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]:
        if each.state.terminated:
            ended = each.state.terminated
            found[each.name] = f"Terminated: {ended.reason}, exit code {ended.exit_code}"
        elif each.state.waiting:
            found[each.name] = f"Waiting: {each.state.waiting.reason}"
        else:
            found[each.name] = "Running"
    return found


def describe(api, pod):
    """What `kubectl describe` and `kubectl logs` would show of a pod, shortened."""
    name, namespace = pod.metadata.name, pod.metadata.namespace
    events = api.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items
    said = {}
    for container in states(pod):
        try:
            lines = api.read_namespaced_pod_log(name, namespace, container=container, tail_lines=3)
        except Exception as error:  # there is none for a container that never started
            lines = f"({getattr(error, 'reason', error)})"
        said[container] = lines.strip().splitlines()[-3:]
    return {
        "pod": name,
        "phase": pod.status.phase,
        "containers": states(pod),
        "events": [f"{event.reason}: {event.message}" for event in events],
        "logs": said,
    }


@dag(
    dag_id="35_04_09_debugging_failed_pods",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "failure"],
    params={
        "seconds": Param(60, type="integer", minimum=10, maximum=600, description="how long to look at the pods"),
    },
    doc_md=__doc__,
)
def debugging_failed_pods():
    @task
    def raises():
        """An exception: the task fails, its pod does not."""
        raise ValueError("a mistake of the task; no business of the pod's")

    @task(executor_config=limited("384Mi"))
    def out_of_memory():
        """Takes memory until the kernel objects."""
        taken = []
        while True:
            taken.append(bytearray(16 * 2**20))
            log.info("%s MiB and counting", 16 * len(taken))
            time.sleep(0.05)

    @task(executor_config=override({"image": MISSING, "image_pull_policy": "IfNotPresent"}))
    def image_missing():
        """Never runs: its pod has no image to start."""

    @task(executor_config=broken_init())
    def init_fails():
        """Never runs: a container before it fails."""

    @task(executor_config=reader())
    def where_to_look(params=None, ti=None):
        """Looks at the pods of the other tasks, as one would with kubectl, until each has come to its end."""
        api, namespace = kubernetes_api(), conf.get("kubernetes_executor", "namespace")
        selector = f"dag_id={ti.dag_id},kubernetes_executor=True"
        deadline, seen, settled = time.monotonic() + params["seconds"], {}, set()
        while not settled >= {"out_of_memory", "image_missing", "init_fails"} and time.monotonic() < deadline:
            for pod in api.list_namespaced_pod(namespace, label_selector=selector).items:
                task_id = pod.metadata.annotations["task_id"]
                if task_id == ti.task_id or pod.metadata.annotations.get("run_id") != ti.run_id:
                    continue
                found = describe(api, pod)
                seen.setdefault(task_id, {})[pod.metadata.name] = found
                if found["phase"] in ("Succeeded", "Failed") or "ImagePull" in str(found["containers"]):
                    settled.add(task_id)
            time.sleep(1)
        for task_id, pods in sorted(seen.items()):
            for pod in pods.values():
                log.info("%s: pod %s is %s", task_id, pod["pod"], pod["phase"])
                for name, state in pod["containers"].items():
                    log.info("    container %s  %s; last lines %s", name, state, pod["logs"].get(name))
                for event in pod["events"]:
                    log.info("    event %s", event)
            log.info("    kubectl -n %s describe pods -l dag_id=%s,task_id=%s", namespace, ti.dag_id, task_id)
        return seen

    @task(trigger_rule="one_failed")
    def watcher():
        """Fails when a task before it has failed, so that the run does too.

        Source: https://airflow.apache.org/docs/apache-airflow/stable/best-practices.html
        """
        raise RuntimeError("a task of this run has failed")

    [raises(), out_of_memory(), image_missing(), init_fails(), where_to_look()] >> watcher()


debugging_failed_pods()
