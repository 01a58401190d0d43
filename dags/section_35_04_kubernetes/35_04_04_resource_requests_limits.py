"""# 35.4.4 Requests and limits

| | who reads it | CPU | memory |
| --- | --- | --- | --- |
| **request** | the Kubernetes scheduler, once: which node has that much left? | a share when CPUs are short | – |
| **limit** | the kernel of the node, all the time | more is *throttled*: slower | more is *killed*: `OOMKilled` |

A pod whose requests equal its limits is `Guaranteed` and is evicted last, one with less is `Burstable`, one with
none at all is `BestEffort` and goes first. What the task's Python needs comes on top of what Airflow needs to start
it: below about 300 MiB nothing runs at all.

| task | requests | limits | class |
| --- | --- | --- | --- |
| `inherits` | those of the pod template | those of the pod template | the template's |
| `small` | 50m CPU, 320Mi | 1 CPU, 512Mi | Burstable |
| `large` | 250m CPU, 512Mi | 2 CPUs, 1Gi | Burstable |
| `guaranteed` | 400m CPU, 448Mi | the same | Guaranteed |

**Quotas.** A `ResourceQuota` caps what all pods of a namespace may request together. A pod beyond it is not made to
wait, as one that fits on no node is: its creation is *refused* (403, `exceeded quota`), and the executor fails the
task at once, unless `[kubernetes_executor] task_publish_max_retries` is more than 0 (-1: as long as it takes).
A quota counts requests, not use; with one, every container needs them, which the template or a `LimitRange` sees to.
So a quota for n tasks at once has n times their requests, *plus* those of Airflow's own pods if they share it, and
`[core] parallelism` at n keeps the scheduler from asking for more.

**What to look for**: in the log of `report` the table of what each pod was given and saw of it, and how long each
was throttled while it did the same work; last, how many of these fit into a quota.
"""

import logging
import os
import time
from pathlib import Path

from airflow.sdk import Param, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

WANTED = {
    "inherits": None,
    "small": ({"cpu": "50m", "memory": "320Mi"}, {"cpu": "1", "memory": "512Mi"}),
    "large": ({"cpu": "250m", "memory": "512Mi"}, {"cpu": "2", "memory": "1Gi"}),
    "guaranteed": ({"cpu": "400m", "memory": "448Mi"}, {"cpu": "400m", "memory": "448Mi"}),
}
"""Task → requests and limits; None: whatever the pod template says."""


def sized(wanted):
    """The `executor_config` of a pod with these requests and limits, which can also see them."""
    env = [
        k8s.V1EnvVar(
            name=f"SEEN_{name.replace('.', '_').upper()}",
            value_from=k8s.V1EnvVarSource(
                resource_field_ref=k8s.V1ResourceFieldSelector(
                    container_name="base", resource=name, divisor="1m" if name.endswith("cpu") else "1Mi"
                )
            ),
        )
        for name in ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
    ]
    resources = k8s.V1ResourceRequirements(requests=wanted[0], limits=wanted[1]) if wanted else None
    base = k8s.V1Container(name="base", env=env, resources=resources)
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))}


def first_of(*files):
    """The text of the first file that exists; "" when none does."""
    return next((Path(file).read_text().strip() for file in files if Path(file).exists()), "")


def cgroup():
    """What the kernel holds this container to: CPUs in thousandths and MiB; None for what has no limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    quota = first_of("/sys/fs/cgroup/cpu.max").split()
    if not quota:  # version 1
        quota = [first_of(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") or "0" for name in ("quota", "period")]
    memory = first_of("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return {
        "cpu": int(quota[0]) * 1000 // int(quota[1]) if quota[0].isdigit() and quota[0] != "0" else None,
        "memory": int(memory) // 2**20 if memory.isdigit() and int(memory) < 2**50 else None,
    }


def throttled():
    """Seconds for which this container wanted to compute and its own control group did not let it.

    That of its pod, one level up, has the same limit here, and may be the one that says no.
    """
    text = first_of("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat")
    values = dict(line.split() for line in text.splitlines())
    return int(values.get("throttled_usec", 0)) / 1e6 or int(values.get("throttled_time", 0)) / 1e9


@dag(
    dag_id="35_04_04_resource_requests_limits",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "seconds": Param(2, type="number", minimum=0, maximum=60, description="CPU seconds that each task computes"),
    },
    doc_md=__doc__,
)
def resource_requests_limits():
    @task
    def work(params=None, ti=None):
        """Computes for some seconds of CPU time, and tells what it was given and how often it had to pause."""
        given = {key[5:].lower(): int(value) for key, value in os.environ.items() if key.startswith("SEEN_")}
        before, started, used = throttled(), time.monotonic(), time.process_time()
        while time.process_time() - used < params["seconds"]:
            sum(range(10_000))
        took, paused = time.monotonic() - started, throttled() - before
        found = {"task": ti.task_id, "given": given, "kernel": cgroup(), "seconds": took, "throttled": paused}
        log.info("Requests and limits, in thousandths of a CPU and MiB: %s", given)
        log.info("The kernel holds me to %s", found["kernel"])
        log.info("%s s of CPU time took %.1f s.", params["seconds"], took)
        log.info("My control group held me up for %.1f s of them; the rest may have been my pod's.", paused)
        return found

    @task
    def report(found):
        """Task by task, and how many of each fit into a quota."""
        for each in found:
            given = each["given"]
            log.info(
                "%-10s requests %4sm CPU %5s MiB, limits %5sm CPU %5s MiB; throttled %.1f s of %.1f s",
                each["task"],
                given.get("requests_cpu"),
                given.get("requests_memory"),
                given.get("limits_cpu"),
                given.get("limits_memory"),
                each["throttled"],
                each["seconds"],
            )
        quota = {"requests_cpu": 1000, "requests_memory": 2048}
        fit = {}
        for each in found:
            asked = {key: each["given"].get(key) for key in quota}
            fit[each["task"]] = min((quota[key] // asked[key] for key in quota if asked[key]), default=None)
            log.info("A quota of 1 CPU and 2Gi holds %s pods like %s at once.", fit[each["task"]], each["task"])
        log.info("The next one is refused, not queued: kubectl describe resourcequota; 403 in the scheduler's log.")
        return {"found": {each["task"]: each for each in found}, "fit": fit}

    report([work.override(task_id=name, executor_config=sized(wanted))() for name, wanted in WANTED.items()])


resource_requests_limits()
