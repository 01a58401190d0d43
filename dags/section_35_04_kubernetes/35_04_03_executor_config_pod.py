"""# 35.4.3 A pod of one's own: `executor_config`

    @task(executor_config={"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[
        k8s.V1Container(name="base", resources=…)
    ]))})

A `pod_override` is a pod with nothing but the differences in it. The scheduler lays it over the pod template
(35.4.2) when the task is queued; so it is decided when the file is parsed, and cannot be a template.

| in the override | what becomes of the template's |
| --- | --- |
| a plain value: image, node selector as a whole, service account | replaced |
| `resources` | replaced as a whole: an override with limits alone loses the template's requests |
| `env`, `volumes`, `volume_mounts`, `ports`, `init_containers` | kept, and the override's come after |
| labels and annotations | joined by key |
| the first container | merged with the template's first, whatever the names: call it `base` |
| nothing, None, 0, False, "" | kept: an override cannot unset anything |

Use it for what one task needs. What all need belongs into the template; what belongs to another executor's tasks is
ignored there (35.5.2). A `pod_override` that is no `V1Pod` fails the task when it is queued, not the file.

The *image* must hold the same Airflow, since it runs the task. These labs have one image; `other_image` asks for it
by its full name, which the API server stores as it was written, so that the override can be seen.

**What to look for**: in the log of `report`, what each task asked for beside what its pod was. And from outside:
`kubectl get pod … -o jsonpath='{.spec.containers[0].image} {.spec.nodeSelector}'`.
"""

import logging
import os
import socket

from airflow.sdk import conf, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

REPOSITORY = conf.get("kubernetes_executor", "worker_container_repository", fallback="")
TAG = conf.get("kubernetes_executor", "worker_container_tag", fallback="")
TOLERATION = k8s.V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
"""Zone b of these labs is a node for GPU work, which repels other pods: see 35.4.5."""


def full_name(repository):
    """An image's name with its registry, as Docker and containerd complete it."""
    first = repository.split("/")[0]
    if "." in first or ":" in first or first == "localhost":
        return repository
    return f"docker.io/{repository}" if "/" in repository else f"docker.io/library/{repository}"


def seen(name, **source):
    """A variable by which a task sees something of its own pod."""
    return k8s.V1EnvVar(name=name, value_from=k8s.V1EnvVarSource(**source))


def override(*, labels=None, image=None, resources=None, env=(), **spec):
    """The `executor_config` with these differences; each pod also sees its node and what it may use."""
    eyes = [
        seen("SEEN_NODE", field_ref=k8s.V1ObjectFieldSelector(field_path="spec.nodeName")),
        *(
            seen(
                f"SEEN_{name.replace('.', '_').upper()}",
                resource_field_ref=k8s.V1ResourceFieldSelector(
                    resource=name, divisor="1m" if name.endswith("cpu") else "1Mi"
                ),
            )
            for name in ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
        ),
    ]
    base = k8s.V1Container(name="base", image=image, resources=resources, env=[*eyes, *env])
    metadata = k8s.V1ObjectMeta(labels=labels) if labels else None
    return {"pod_override": k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=[base], **spec))}


def pruned(value):
    """A Kubernetes model as plain data, without what is not set."""
    if isinstance(value, dict):
        return {key: pruned(each) for key, each in value.items() if each not in (None, [], {})}
    return [pruned(each) for each in value] if isinstance(value, list) else value


LARGE = k8s.V1ResourceRequirements(
    requests={"cpu": "200m", "memory": "448Mi"},
    limits={"cpu": "1", "memory": "896Mi"},
)


@dag(
    dag_id="35_04_03_executor_config_pod",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def executor_config_pod():
    @task
    def place(ti=None):
        """Tells what can be seen from inside; the same code with each `executor_config`."""
        found = {key[5:].lower(): value for key, value in os.environ.items() if key.startswith("SEEN_")}
        found |= {"task": ti.task_id, "pod": socket.gethostname(), "greeting": os.environ.get("GREETING")}
        log.info("%s", found)
        return found

    @task
    def report(places, ti=None):
        """What each task asked for, and what it got."""
        asked = {}
        for each in places:
            config = ti.task.dag.get_task(each["task"]).executor_config
            pod = pruned(config["pod_override"].to_dict()) if config else {}
            spec = pod.get("spec", {})
            base = spec.get("containers", [{}])[0]
            asked[each["task"]] = {
                "image": base.get("image"),
                "resources": base.get("resources"),
                "node_selector": spec.get("node_selector"),
                "labels": pod.get("metadata", {}).get("labels"),
            }
            log.info("%s asked for %s", each["task"], {k: v for k, v in asked[each["task"]].items() if v} or "nothing")
            log.info(
                "%s got node %s, requests %sm CPU and %s MiB, limits %sm CPU and %s MiB",
                each["task"],
                *(each.get(key) for key in ("node", "requests_cpu", "requests_memory", "limits_cpu", "limits_memory")),
            )
        log.info("An image cannot be seen from inside: kubectl get pod … -o jsonpath='{.spec.containers[0].image}'")
        return {"asked": asked, "places": {each["task"]: each for each in places}}

    report(
        [
            place.override(task_id="plain")(),
            place.override(task_id="eyes_only", executor_config=override())(),
            place.override(task_id="other_image", executor_config=override(image=f"{full_name(REPOSITORY)}:{TAG}"))(),
            place.override(task_id="other_resources", executor_config=override(resources=LARGE))(),
            place.override(
                task_id="other_node",
                executor_config=override(node_selector={"topology.kubernetes.io/zone": "b"}, tolerations=[TOLERATION]),
            )(),
            place.override(
                task_id="everything",
                executor_config=override(
                    labels={"cost-centre": "35-04-03"},
                    image=f"{full_name(REPOSITORY)}:{TAG}",
                    resources=LARGE,
                    env=[k8s.V1EnvVar(name="GREETING", value="from the override")],
                    node_selector={"topology.kubernetes.io/zone": "b"},
                    tolerations=[TOLERATION],
                ),
            )(),
        ]
    )


executor_config_pod()
