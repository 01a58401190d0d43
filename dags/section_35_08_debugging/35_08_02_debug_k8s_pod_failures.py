"""# 35.8.2 From the symptom of a pod to its cause

A task that does not start, or dies, has one of a few causes. Go down the list; the first *yes* is the place to look:

    1. Is there a pod?     kubectl get pods -l dag_id=…,task_id=…
       no  ─▶ its creation was refused: the scheduler's log has the answer of the Kubernetes API, 403 or 422, and why
    2. Is it Pending?      kubectl describe pod …, the events at the end
       FailedScheduling ─▶ no node fits      ErrImagePull ─▶ the image      FailedMount ─▶ a volume
    3. Has it ended?       State, Reason and Exit Code of its containers
       OOMKilled ─▶ memory      Error of an init container ─▶ its log      DeadlineExceeded, Evicted ─▶ pod.status
    4. Did it end well?    then the pod is not the problem: the task's own log is

| task | cause | the words to look for | the fix |
| --- | --- | --- | --- |
| `out_of_memory` | its memory limit | `OOMKilled`, exit code 137 | a higher limit: `enough_memory` |
| `image_missing` | an image that nobody has | `ErrImagePull`, `ImagePullBackOff` | the name, a pull secret |
| `privileged` | the namespace's Pod Security | 403 `violates PodSecurity` | a security context as in 35.4.6 |
| `unknown_account` | a service account that is not there | 403 `serviceaccount … not found` | create it, correct it |
| `limit_below_request` | a template or override that makes no valid pod | 422 `is invalid` | the field that it names |
| `asks_without_role` | RBAC: the account may not | 403 `cannot list resource "pods"` | a Role, as its log says |
| `no_such_node` | no node has the label that it wants | `FailedScheduling` … `node affinity/selector` | label a node |

A 403 names who wanted what: `User "system:serviceaccount:<namespace>:<account>" cannot <verb> resource "<resource>"`.
That sentence is the Role to write; `kubectl auth can-i <verb> <resource> --as=…` tries it out. A 422 names the field.
The executor's own words, `Pod creation failed with reason …`, say less: the answer stands above them.

`no_such_node` waits, as its pod does: until a node has the label (`kubectl label node … disk=35-08-02`), then it runs
and ends well; or until `[scheduler] task_queued_timeout` has passed for the third time, then it is failed.

**What to look for**: the log of `diagnose`: cause and fix of each, beside the events that say so. The run fails, as
some of its tasks must.
"""

import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from airflow.sdk import Param, conf, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

MISSING = "localhost:1/no-such-image:1.0"
"""Nothing listens on port 1 of a node, so that this fails at once on any network."""

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

CAUSES = {
    "out_of_memory": ("more memory than its limit", "raise limits.memory, or take less at once"),
    "image": ("the image cannot be pulled", "correct registry, name and tag; add imagePullSecrets for a private one"),
    "unschedulable": ("no node fits", "label or add a node, or ask for less: the event says what is missing"),
    "init": ("an init container failed", "read the log of that container"),
    "mount": ("a volume cannot be mounted", "create the ConfigMap, Secret or claim that the event names"),
    "refused": ("there is no pod: its creation was refused", "read the answer of the API in the scheduler's log"),
    "starting": ("nothing yet: it is starting", "wait a little"),
    "fine": ("nothing is wrong with the pod", "read the log of the task"),
}
"""Cause → what it means, and what to do."""


def override(base=None, **spec):
    """The `executor_config` of a pod that differs from the template like that; it does nothing on other executors."""
    metadata = spec.pop("metadata", None)
    container = k8s.V1Container(name="base", **(base or {}))
    return {"pod_override": k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=[container], **spec))}


def limited(memory, least="320Mi"):
    """A pod that gets no more memory than that, and on a node that has as much as the least."""
    requests = {"cpu": "50m", "memory": least}
    return override({"resources": k8s.V1ResourceRequirements(requests=requests, limits={"cpu": "1", "memory": memory})})


def with_account(name=None):
    """A pod that has its service account's token, and may reach the Kubernetes API."""
    labels = k8s.V1ObjectMeta(labels={"reaches": "kubernetes-api"})  # the network policy lets such pods through
    return override(metadata=labels, service_account_name=name, automount_service_account_token=True)


def need_a_pod():
    """Stops a task that some other executor runs: it would harm that one's worker, or show nothing."""
    if "AIRFLOW_IS_K8S_EXECUTOR_POD" not in os.environ:
        raise RuntimeError("no pod of the KubernetesExecutor runs this task: run it in the lab kubernetes")


def take_memory():
    """Takes 640 MiB in small steps."""
    need_a_pod()
    taken = []
    for step in range(1, 41):
        taken.append(bytearray(16 * 2**20))
        log.info("%s MiB", 16 * step)
        time.sleep(0.05)
    return 16 * len(taken)


def ask(path):
    """The answer of the Kubernetes API to this pod's service account: status and JSON."""
    url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {Path(ACCOUNT, 'token').read_text()}"})
    trusted = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    try:
        with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def explain(pod, events):
    """The cause of a pod's plight, as a key of `CAUSES`, and the words that say so."""
    status = pod["status"]
    first, others = status.get("initContainerStatuses", []), status.get("containerStatuses", [])
    for each in first + others:
        ended, waiting = each["state"].get("terminated", {}), each["state"].get("waiting", {})
        if ended.get("reason") == "OOMKilled":
            return "out_of_memory", f"{each['name']}: OOMKilled, exit code {ended['exitCode']}"
        if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
            return "image", f"{each['name']}: {waiting['reason']}: {waiting.get('message', '')}"
    for each in first:
        if each["state"].get("terminated", {}).get("exitCode"):
            return "init", f"{each['name']} ended with {each['state']['terminated']['exitCode']}"
    if status["phase"] == "Pending":
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return "unschedulable", condition.get("message", "")
        for event in events:
            if event["reason"] == "FailedMount":
                return "mount", event["message"]
        return "starting", "; ".join(event["reason"] for event in events[-2:])
    return "fine", f"phase {status['phase']}"


@dag(
    dag_id="35_08_02_debug_k8s_pod_failures",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "debugging", "intermediate", "failure"],
    params={
        "seconds": Param(60, type="integer", minimum=10, maximum=600, description="how long `diagnose` looks at most"),
    },
    doc_md=__doc__,
)
def debug_k8s_pod_failures():
    @task(executor_config=limited("384Mi"))
    def out_of_memory():
        """Takes 640 MiB in small steps, with a limit of 384."""
        return take_memory()

    @task(executor_config=limited("1280Mi"))
    def enough_memory():
        """The fix: the same with a limit that is enough."""
        return take_memory()

    @task(executor_config=override({"image": MISSING, "image_pull_policy": "IfNotPresent"}))
    def image_missing():
        """Never runs in a pod: there is no image to start."""
        need_a_pod()

    @task(executor_config=override({"security_context": k8s.V1SecurityContext(privileged=True)}))
    def privileged():
        """Never runs in a pod: the namespace enforces Pod Security *restricted*, and its creation is refused."""
        need_a_pod()

    @task(executor_config=override(service_account_name="no-such-account"))
    def unknown_account():
        """Never runs in a pod: no pod is made for an account that is not there."""
        need_a_pod()

    @task(executor_config=limited("384Mi", least="640Mi"))
    def limit_below_request():
        """Never runs in a pod: nobody can ask for more than its limit, so what its override makes is no valid pod."""
        need_a_pod()

    @task(executor_config=override(node_selector={"disk": "35-08-02"}))
    def no_such_node():
        """Runs once a node has the label `disk=35-08-02`."""
        need_a_pod()
        log.info("A node has been given the label: here I am.")

    @task(executor_config=with_account())
    def asks_without_role():
        """Lists pods with the account of all workers, which has no Role: 403; says which Role would do."""
        need_a_pod()
        namespace = conf.get("kubernetes_executor", "namespace")
        status, answer = ask(f"/api/v1/namespaces/{namespace}/pods?limit=1")
        log.info("The API answers %s: %s", status, answer.get("message", "a list"))
        wanted = re.search(r'User "(\S+)" cannot (\w+) resource "(\w+)"', answer.get("message", ""))
        if not wanted:
            return {"status": status}
        account, verb, resource = wanted.groups()
        log.info("As a Role:  rules: [{apiGroups: [''], resources: [%s], verbs: [%s]}]", resource, verb)
        log.info("Bind it to: %s;  try it:  kubectl auth can-i %s %s --as=%s", account, verb, resource, account)
        raise PermissionError(answer["message"])

    @task(executor_config=with_account("airflow-pod-reader"))
    def diagnose(params=None, ti=None):
        """Looks at the pods of the other tasks, with an account that may, until it knows the cause of each."""
        need_a_pod()
        namespace = conf.get("kubernetes_executor", "namespace")
        root = f"/api/v1/namespaces/{namespace}"
        others = set(ti.task.dag.task_ids) - {ti.task_id, "watcher"}
        found, deadline = {}, time.monotonic() + params["seconds"]
        while time.monotonic() < deadline:
            _, pods = ask(f"{root}/pods?labelSelector=dag_id%3D{ti.dag_id}")
            for pod in pods["items"]:
                task_id, name = pod["metadata"]["annotations"]["task_id"], pod["metadata"]["name"]
                if task_id in others and pod["metadata"]["annotations"].get("run_id") == ti.run_id:
                    _, told = ask(f"{root}/events?fieldSelector=involvedObject.name%3D{name}")
                    events = [{"reason": each["reason"], "message": each["message"]} for each in told["items"]]
                    cause, words = explain(pod, events)
                    if found.get(task_id, {}).get("cause") in (None, "starting", "fine"):
                        found[task_id] = {"pod": name, "cause": cause, "words": words, "events": events[-4:]}
            known = {task_id for task_id, each in found.items() if each["cause"] not in ("starting", "fine")}
            if known >= {"out_of_memory", "image_missing", "no_such_node"}:
                break
            time.sleep(1)
        for task_id in others - set(found):
            found[task_id] = {"pod": None, "cause": "refused", "words": "", "events": []}
        for task_id, each in sorted(found.items()):
            cause, fix = CAUSES[each["cause"]]
            log.info("%-17s %s (%s)", task_id, cause, each["words"] or "no pod, no event")
            log.info("%-17s ▶ %s", "", fix)
            for event in each["events"]:
                log.info("%-17s   event %s: %s", "", event["reason"], event["message"])
        return found

    @task(trigger_rule="one_failed")
    def watcher():
        """Fails when a task before it has failed, so that the run does too.

        Source: https://airflow.apache.org/docs/apache-airflow/stable/best-practices.html
        """
        raise RuntimeError("a task of this run has failed")

    refused = [privileged(), unknown_account(), limit_below_request(), asks_without_role()]
    [out_of_memory(), image_missing(), *refused, no_such_node(), enough_memory(), diagnose()] >> watcher()


debug_k8s_pod_failures()
