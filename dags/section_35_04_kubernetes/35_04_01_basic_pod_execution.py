"""# 35.4.1 One pod for each task

Nothing in this file says Kubernetes. With `[core] executor = KubernetesExecutor` the scheduler asks the Kubernetes
API for one pod per task instance, and per try:

    scheduler ──create──▶ Kubernetes API ──bind──▶ a node's kubelet ──start──▶ pod, container `base`
        ▲                      │                                                 │ runs one task, reports its
        └────────watch─────────┘                                                 ▼ state to Airflow's API server

| the pod is | because | and the task |
| --- | --- | --- |
| `Pending` | the API server has it; a node is sought, images are pulled, init containers run | is `queued` |
| `Running` | the container `base` runs: first Python starts, then the task | is `queued`, then `running` |
| `Succeeded` | the container ended with 0, which it also does when the *task* failed | is at its end |
| `Failed` | the container itself came to grief: memory, node, init container | is failed, by the executor |
| gone | the executor deletes it (35.4.8), with its files and its log | |

So a task shares neither processes nor files with another one, not even with its own next try. What is to reach the
next task goes through XCom, or through storage that both mount (35.4.7).

**What to look for**: while it runs, `kubectl get pods --watch` in the lab's namespace; the log of `report` has the
commands with the names filled in, and what the two tasks saw of each other: nothing.
"""

import logging
import os
import socket
import time
from pathlib import Path

import psutil
from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

NOTE = "/tmp/35_04_01_note.txt"  # noqa: S108  the point is that nobody else sees it


def look_around(ti):
    """What a task sees of the place where it runs; leaves a note there."""
    note = Path(NOTE)
    found = note.read_text() if note.exists() else None
    note.write_text(f"{ti.task_id} was here")
    processes = {process.pid: process.name() for process in psutil.process_iter()}
    return {
        "task": ti.task_id,
        "try": ti.try_number,
        "pod": socket.gethostname(),
        "in_pod": "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "processes": len(processes),
        "first_process": " ".join(psutil.Process(1).cmdline())[:60],
        "container_started": psutil.Process(1).create_time(),
        "note_of_another": found,
    }


@dag(
    dag_id="35_04_01_basic_pod_execution",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    params={
        "seconds": Param(5, type="number", minimum=0, maximum=600, description="how long each pod is there to look at"),
    },
    doc_md=__doc__,
)
def basic_pod_execution():
    @task
    def first(params=None, ti=None):
        """Looks around, leaves a note in /tmp, and stays for a while, so that `kubectl get pods` shows its pod."""
        seen = look_around(ti)
        if not seen["in_pod"]:
            log.warning("No pod of the KubernetesExecutor runs this task: run it in the lab kubernetes.")
        log.info("I am process %(pid)s of %(processes)s in pod %(pod)s; process 1 is %(first_process)s", seen)
        log.info(
            "The container started %.1f s before this line: Python and its imports.",
            time.time() - seen["container_started"],
        )
        time.sleep(params["seconds"])
        return seen

    @task
    def second(before, params=None, ti=None):
        """The same, in another pod: the note is not there, the process number may well be the same."""
        seen = look_around(ti)
        log.info("first ran in %s, I run in %s", before["pod"], seen["pod"])
        log.info("Note of another task in /tmp: %s", seen["note_of_another"])
        time.sleep(params["seconds"])
        return seen

    @task
    def report(seen, ti=None):
        """Both side by side, and how to look at pods from outside."""
        for each in seen:
            log.info("%(task)-7s try %(try)s  pod %(pod)s  process %(pid)s below %(parent)s", each)
        separate = len({each["pod"] for each in seen}) == len(seen)
        log.info("A pod each: %s. Notes found: %s.", separate, [each["note_of_another"] for each in seen])
        namespace = conf.get("kubernetes_executor", "namespace")
        selector = f"dag_id={ti.dag_id},kubernetes_executor=True"
        log.info("See them come and go:  kubectl -n %s get pods -l %s --watch", namespace, selector)
        log.info("One in full:           kubectl -n %s get pod %s -o yaml", namespace, socket.gethostname())
        log.info("Its log, while it is:  kubectl -n %s logs %s -c base", namespace, socket.gethostname())
        return {"pods": [each["pod"] for each in seen], "separate": separate}

    one = first()
    report([one, second(one)])


basic_pod_execution()
