"""# 35.8.5 Common pitfalls, each beside what to do instead

| pitfall | it fails when | instead |
| --- | --- | --- |
| a file on the worker's disk for the next task | the next task runs on another worker | XCom, object storage |
| a task that expects its executor | the deployment has another one | look at what is there, have a default |
| memory as on the author's laptop | the worker's limit is lower | work in pieces; measure, then reserve |
| a slot reserved for work that only waits | others queue behind it | a queue with many slots, a deferrable operator |
| tasks that wait for each other | there are fewer slots than tasks | a dependency: `first >> second` |

Each wrong task here works on the author's machine, with the LocalExecutor and slots enough. It fails here, on
purpose, with the error that you will meet; the right one beside it does the same work and succeeds.

In pods it is otherwise: who expects a pod has one, and tasks that wait for each other meet, because there are as many
pods as tasks. The file is lost there too, with the pod that wrote it, and the memory is as short.

Every worker of the lab stands for a machine of its own, so it has a "disk" of its own: a folder with its name. The
limit of memory is one that the task sets for itself, as a container or a cgroup would.

**What to look for**: the table in the log of `report`, and the error at the end of each wrong task's log. `watcher`
fails the run: without it, a `report` that runs whatever happens would make it a success.
"""

import logging
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from airflow.sdk import Param, Variable, conf, dag, task

log = logging.getLogger("airflow.task")

PITFALLS = {
    "shared filesystem": ("reads_a_file", "reads_an_xcom"),
    "hard-coded executor": ("expects_a_pod", "asks_where_it_is"),
    "under-provisioned": ("loads_everything", "works_in_pieces"),
    "over-provisioned": ("waits_in_a_cpu_slot", "waits_in_an_io_slot"),
    "executor's limits": ("meets_second", "comes_second"),
}
"""Pitfall → the task that falls into it, and the one that does not."""

MEGABYTE = 2**20


def disk(ti):
    """The disk of the worker that runs this task: in the lab, a folder with the worker's name."""
    return Path(tempfile.gettempdir(), "35_08_05", ti.hostname, ti.run_id.replace(":", "-"))


def limit_memory(megabytes):
    """Let this process have no more memory than now and so many MB: what a container would do to it."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * MEGABYTE, resource.RLIM_INFINITY))


def total(numbers, size):
    """The sum of the numbers below `numbers`, of which `size` are in memory at a time."""
    return sum(sum(list(range(start, min(start + size, numbers)))) for start in range(0, numbers, size))


def meet(own, other, ti, patience):
    """Say that I am here, and wait for the other."""
    Variable.set(f"35_08_05_{own}", ti.run_id)
    try:
        deadline = time.monotonic() + patience
        while Variable.get(f"35_08_05_{other}", default=None) != ti.run_id:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{other} did not come within {patience} s: it waits for the slot that I hold")
            time.sleep(0.2)
        time.sleep(1)  # for the other one to see me too
    finally:
        Variable.delete(f"35_08_05_{own}")


@dag(
    dag_id="35_08_05_common_pitfalls",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "anti-patterns", "intermediate", "failure"],
    params={
        "patience": Param(3, type="number", minimum=1, maximum=60, description="seconds that a meeting task waits")
    },
    doc_md=__doc__,
)
def common_pitfalls():
    @task(queue="io_bound")
    def writes(ti=None):
        """Leaves its result twice: on the disk of its worker, and as an XCom."""
        disk(ti).mkdir(parents=True)
        (disk(ti) / "result.txt").write_text("42")
        log.info("%s has the file %s.", ti.hostname, disk(ti) / "result.txt")
        return 42

    @task(queue="heavy_compute")
    def reads_a_file(ti=None):
        """Wrong: looks for the file on its own disk, that of another worker."""
        return int((disk(ti) / "result.txt").read_text())

    @task(queue="heavy_compute")
    def reads_an_xcom(written):
        """Right: the value comes with the message of Airflow, to any worker."""
        return written

    @task
    def expects_a_pod():
        """Wrong: is sure that it runs in a pod of the KubernetesExecutor."""
        return os.environ["AIRFLOW_IS_K8S_EXECUTOR_POD"]

    @task
    def asks_where_it_is():
        """Right: looks, and has an answer for every executor."""
        pod = os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD") == "True"
        log.info("In a pod: %s; [core] executor = %s", pod, conf.get("core", "executor"))
        return {"pod": pod}

    @task
    def loads_everything():
        """Wrong: needs about 300 MB at once where there are 64."""
        limit_memory(64)
        return total(8_000_000, 8_000_000)

    @task
    def works_in_pieces():
        """Right: does the same work within the same 64 MB."""
        limit_memory(64)
        return total(8_000_000, 100_000)

    @task(queue="compute")
    def waits_in_a_cpu_slot():
        """Wrong, but no error: holds the only slot for computing, and computes nothing."""
        started, cpu = time.monotonic(), time.process_time()
        time.sleep(2)
        return (time.process_time() - cpu) / (time.monotonic() - started)

    @task(queue="io_bound")
    def waits_in_an_io_slot():
        """Right: waits where slots are many, because waiting is what they are for."""
        time.sleep(2)

    @task(queue="compute")
    def meets_first(params=None, ti=None):
        """Wrong: waits, while it runs, for a task that needs its slot."""
        meet("first", "second", ti, params["patience"])

    @task(queue="compute")
    def meets_second(params=None, ti=None):
        """Wrong in the same way: it starts when the first has given up."""
        meet("second", "first", ti, params["patience"])

    @task(queue="compute")
    def comes_first():
        """Right: is simply first."""
        return "here you are"

    @task(queue="compute")
    def comes_second(handed):
        """Right: starts when the first has ended, however many slots there are."""
        return handed

    @task(trigger_rule="all_done")
    def report(ti=None):
        """Each pitfall: how the wrong task ended, and how the right one."""
        names = [name for pair in PITFALLS.values() for name in pair]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=names, run_ids=[ti.run_id])[ti.run_id]
        busy = ti.xcom_pull(task_ids="waits_in_a_cpu_slot")
        for pitfall, (wrong, right) in PITFALLS.items():
            log.info("%-20s %-20s %-8s | %-20s %s", pitfall, wrong, states[wrong], right, states[right])
        log.info("waits_in_a_cpu_slot used %.1f %% of the CPU that it held: no error says so.", 100 * busy)
        return {"states": states, "busy": busy}

    @task(queue="io_bound", trigger_rule="all_done")
    def tidy_up(ti=None):
        """Takes the file away, from the disk on which it is; that of a pod has gone with it."""
        shutil.rmtree(disk(ti), ignore_errors=True)

    @task(trigger_rule="one_failed")
    def watcher():
        """Fails when a task before it has failed, so that the run does too.

        Source: https://airflow.apache.org/docs/apache-airflow/stable/best-practices.html
        """
        raise RuntimeError("a task of this run has failed")

    written = writes()
    read = [reads_a_file(), reads_an_xcom(written)]
    written >> read[0]
    read >> tidy_up()
    others = [expects_a_pod(), asks_where_it_is(), loads_everything(), works_in_pieces()]
    waits = [waits_in_a_cpu_slot(), waits_in_an_io_slot()]
    meetings = [meets_first(), meets_second(), comes_second(comes_first())]
    [*read, *others, *waits, *meetings] >> report()
    [*read, *others, *waits, *meetings] >> watcher()


common_pitfalls()
