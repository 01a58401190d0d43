"""# 35.4.2 The pod template

`[kubernetes_executor] pod_template_file` names a file that the *scheduler* reads, each time it makes a pod:

    ┌ pod_template_file ┐   ┌ the executor ┐   ┌ pod_override of the task ┐   ┌ pod_mutation_hook ┐
    │ everything but    │ ◀ │ name, image, │ ◀ │ see 35.4.3               │ ◀ │ Python, the last  │ ──▶ the pod
    │ the work          │   │ args, labels │   │                          │   │ word, for all     │
    └───────────────────┘   └──────────────┘   └──────────────────────────┘   └───────────────────┘

What each adds wins over what stands left of it; lists such as `env`, `volumes` and `volume_mounts` are joined.

| the template should have | or else |
| --- | --- |
| a first container named `base` | Airflow reads the logs of `base`, and puts the work into the first one |
| `restartPolicy: Never` | the kubelet would run a failed task again, behind Airflow's back |
| `serviceAccountName`, and no token unless needed | pods run as the namespace's `default` account |
| what a worker needs: where the API server is, the DAGs, the same `[core] executor` | the task does not start |
| labels and annotations of your own | nobody can tell who pays for the pod |

A file that is missing is no error at parsing: the scheduler's log says `Model file … does not exist`, and the pod is
made of the executor's part alone. `airflow kubernetes generate-dag-yaml` shows the merged pods without running any.

A task may ask for another file: `executor_config={"pod_template_file": …}`, an absolute path *on the scheduler*. It
takes the place of the default template; the two are not merged.

**What to look for**: the log of `report`: what came from the template, what from the executor. The tasks see it with
the downward API, for which their `pod_override` adds a volume and some variables, and nothing else.
"""

import logging
import os
from pathlib import Path

from airflow.sdk import conf, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

DEFAULT = conf.get("kubernetes_executor", "pod_template_file", fallback="")
SMALL = f"{DEFAULT.rpartition('/')[0]}/small.yaml"
"""Another template of these labs, beside the default one."""

INFO = "/etc/podinfo"


def eyes():
    """A `pod_override` that shows a pod its own metadata.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
    """

    def env(name, field_path):
        field = k8s.V1ObjectFieldSelector(field_path=field_path)
        return k8s.V1EnvVar(name=name, value_from=k8s.V1EnvVarSource(field_ref=field))

    files = [
        k8s.V1DownwardAPIVolumeFile(path=name, field_ref=k8s.V1ObjectFieldSelector(field_path=f"metadata.{name}"))
        for name in ("labels", "annotations")
    ]
    base = k8s.V1Container(
        name="base",
        env=[env("SEEN_SERVICE_ACCOUNT", "spec.serviceAccountName"), env("SEEN_NODE", "spec.nodeName")],
        volume_mounts=[k8s.V1VolumeMount(name="podinfo", mount_path=INFO, read_only=True)],
    )
    volume = k8s.V1Volume(name="podinfo", downward_api=k8s.V1DownwardAPIVolumeSource(items=files))
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base], volumes=[volume]))


def read_metadata(name):
    """Labels or annotations of this pod, as the downward API writes them: `key="value"`, one a line."""
    file = Path(INFO, name)
    lines = file.read_text().splitlines() if file.exists() else []
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def look(ti):
    """What a task sees of its own pod."""
    token = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    return {
        "task": ti.task_id,
        "labels": read_metadata("labels"),
        "annotations": {k: v for k, v in read_metadata("annotations").items() if not k.startswith("kubernetes.io/")},
        "service_account": os.environ.get("SEEN_SERVICE_ACCOUNT"),
        "token_mounted": token.exists(),
    }


@dag(
    dag_id="35_04_02_pod_template",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def pod_template():
    @task
    def template():
        """Logs the file that `[kubernetes_executor] pod_template_file` names, where this pod can read it."""
        file = Path(DEFAULT)
        log.info("[kubernetes_executor] pod_template_file = %s", file)
        if not file.is_file():
            log.info("It is not in this pod, and need not be: only the scheduler reads it.")
            return {"file": str(file), "text": None}
        log.info("It says:\n%s", file.read_text())
        return {"file": str(file), "text": file.read_text()}

    @task(executor_config={"pod_override": eyes()})
    def by_default(ti=None):
        """Runs in a pod of the default template."""
        return look(ti)

    @task(executor_config={"pod_template_file": SMALL, "pod_override": eyes()})
    def by_another(ti=None):
        """Runs in a pod of the template that it asks for."""
        return look(ti)

    @task
    def report(template, pods):
        """What each pod has, and who put it there."""
        own = {"airflow-worker", "airflow_version", "dag_id", "kubernetes_executor", "run_id", "task_id", "try_number"}
        own |= {"map_index", "airflow_ti_id"}
        found = {}
        for pod in pods:
            mine = {key: value for key, value in pod["labels"].items() if key not in own}
            executors = sorted(set(pod["labels"]) & own)
            log.info("%s: labels of the template %s", pod["task"], mine)
            log.info("%s: labels of the executor %s", pod["task"], executors)
            log.info("%s: annotations %s", pod["task"], pod["annotations"])
            log.info(
                "%s: service account %s, its token mounted: %s",
                pod["task"],
                pod["service_account"],
                pod["token_mounted"],
            )
            found[pod["task"]] = {"template_labels": mine, "executor_labels": executors, **pod}
        log.info("Try it without running anything: airflow kubernetes generate-dag-yaml 35_04_02_pod_template")
        return found

    report(template(), [by_default(), by_another()])


pod_template()
