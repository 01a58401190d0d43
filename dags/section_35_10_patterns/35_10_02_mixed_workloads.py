"""# 35.10.2 Many kinds of work in one deployment

Tasks differ in what they need, and in what they do to each other when they share a worker:

| kind | needs | on workers: its queue | with KubernetesExecutor beside them |
| --- | --- | --- | --- |
| `quick` | to start at once | `default`: a process is waiting for it | stays: a pod's start would cost more |
| `io` | a slot to wait in | `io_bound`: many slots, little else | stays |
| `memory` | memory of its own | `heavy_compute`: few slots | a pod with requests and a limit |
| `long` | not to be in the way | `heavy_compute` | a pod, gone when it is done |
| `gpu` | a device | `gpu`: the workers that have one | a pod on a node with one |

**One table** (`PLACES`) says where each kind goes; the tasks name their kind. Who adds an executor or a queue changes
the table, and no task.

**Quick behind long**: workers that serve several queues give their slots to whoever comes first. So few long tasks hold
all slots, and quick ones wait behind them. What helps, from the cheapest on: a limit for the long ones
(`max_active_tis_per_dagrun` here, or a pool), a higher `priority_weight` for the quick ones, queues with workers of
their own, an executor of their own.

**GPU beside CPU**: nodes with devices carry a taint, so that nothing else lands there; a pod needs a toleration to be
let in, and a selector to go nowhere else. (The "GPU" of these labs is a label and a taint; a real one is also asked for
as a resource, `nvidia.com/gpu: 1`.) A task that finds no device says so, and computes without.

**What to look for**: the table in the log of `report`; in the details of the task instances, *Queue* and *Executor*.
"""

import logging
import os
import resource
import time
from pathlib import Path

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

PLACES = {
    "quick": {"queue": "default"},
    "io": {"queue": "io_bound"},
    "memory": {"queue": "heavy_compute", "pod": {"memory": ("384Mi", "768Mi")}},
    "long": {"queue": "heavy_compute", "pod": {}},
    "gpu": {"queue": "gpu", "pod": {"gpu": True}},
}
"""Kind of work → its queue on workers; what its pod is, for those that have one where there are pods."""

DEVICES = ("nvidia[0-9]*", "kfd", "accel*")
"""Device files of GPUs and TPUs in /dev."""

MEGABYTE = 2**20


def configured_executors():
    """Class → what to write as `executor=`, in order, of `[core] executor`: `Class`, `path` or `alias:path`."""
    entries = [entry.strip() for entry in conf.get("core", "executor").split(",")]
    return {entry.split(":")[-1].split(".")[-1]: entry.split(":")[0] for entry in entries}


def pod(memory=None, gpu=False):
    """The `executor_config` of a pod with this much memory (request, limit), or on a node with a GPU."""
    from kubernetes.client import models as k8s  # takes seconds: not at the top, where every task would pay

    needs = k8s.V1ResourceRequirements(requests={"memory": memory[0]}, limits={"memory": memory[1]}) if memory else None
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=needs)])
    if gpu:
        spec.node_selector = {"nvidia.com/gpu.present": "true"}
        spec.tolerations = [k8s.V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")]
    return {"pod_override": k8s.V1Pod(spec=spec)}


def place(kind):
    """The arguments with which a task of this kind goes where it belongs."""
    executor, wanted = configured_executors().get("KubernetesExecutor"), PLACES[kind]
    if executor and "pod" in wanted:
        return {"executor": executor, "executor_config": pod(**wanted["pod"])}
    return {"queue": wanted["queue"]}


def seen(kind, ti, started, **more):
    """What a task tells of where and when it ran."""
    where = {"queue": ti.queue, "host": ti.hostname, "pod": "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ}
    log.info("%s: queue %s, host %s, in a pod of its own: %s", kind, *where.values())
    return {"kind": kind, **where, "started": started, "ended": time.time(), **more}


@dag(
    dag_id="35_10_02_mixed_workloads",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    params={
        "seconds": Param(8, type="number", minimum=0, maximum=120, description="how long each long task works"),
        "megabytes": Param(150, type="integer", minimum=1, maximum=300, description="what `memory` holds at once"),
    },
    doc_md=__doc__,
)
def mixed_workloads():
    @task(**place("quick"), priority_weight=10)
    def quick(number, ti=None):
        """Over in no time, and wanted soon."""
        return seen("quick", ti, time.time(), value=number**2)

    @task(**place("io"))
    def io(number, ti=None):
        """Waits for another system, and computes next to nothing."""
        started, cpu = time.time(), time.process_time()
        time.sleep(1)
        return seen("io", ti, started, busy=(time.process_time() - cpu) / (time.time() - started))

    @task(**place("memory"))
    def memory(params=None, ti=None):
        """Holds much at once: on a shared worker, from what the others have too."""
        started = time.time()
        held = bytearray(params["megabytes"] * MEGABYTE)
        held[::4096] = b"x" * len(held[::4096])  # each page is really there
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MEGABYTE
        log.info("%s MB held, %s MB at the peak of this process", params["megabytes"], peak)
        return seen("memory", ti, started, peak=peak)

    @task(**place("long"), max_active_tis_per_dagrun=1)
    def long(number, params=None, ti=None):
        """Works for a while; of these, one at a time, so that they never hold all slots."""
        started = time.time()
        time.sleep(params["seconds"])
        return seen("long", ti, started)

    @task(**place("gpu"))
    def gpu(ti=None):
        """Wants a device; without one it computes all the same, and says so."""
        started = time.time()
        devices = sorted({str(file) for pattern in DEVICES for file in Path("/dev").glob(pattern)})
        log.info("Devices: %s", ", ".join(devices) or "none: the CPU does it")
        return seen("gpu", ti, started, devices=devices, value=sum(number % 7 for number in range(1_000_000)))

    @task
    def report(quicks, ios, memory, longs, gpu):
        """Each kind: where it ran, how often, and whether the quick ones waited for the long ones."""
        rows = [*quicks, *ios, memory, *longs, gpu]
        for kind in PLACES:
            own = [row for row in rows if row["kind"] == kind]
            hosts = sorted({row["host"] for row in own})
            log.info("%-7s %s × queue %-13s pod: %-5s %s", kind, len(own), own[0]["queue"], own[0]["pod"], hosts)
        last_quick = max(row["ended"] for row in rows if row["kind"] == "quick")
        behind = last_quick > max(row["ended"] for row in rows if row["kind"] == "long")
        log.info("The last quick task ended %s the last long one.", "after" if behind else "before")
        return {
            "kinds": {kind: sum(row["kind"] == kind for row in rows) for kind in PLACES},
            "in_pods": sorted({row["kind"] for row in rows if row["pod"]}),
            "quick_behind_long": behind,
        }

    report(
        quick.expand(number=[1, 2, 3, 4]),
        io.expand(number=[1, 2, 3, 4]),
        memory(),
        long.expand(number=[1, 2]),
        gpu(),
    )


mixed_workloads()
