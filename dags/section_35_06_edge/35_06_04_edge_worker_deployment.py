"""# 35.6.4 Edge workers in various places

An edge worker is one process, `airflow edge worker`, so it runs wherever Python does:

| place | kept alive by | note |
| --- | --- | --- |
| container | its runtime's restart policy | same image as the data centre; a name of its own, not the container's id |
| bare metal or virtual machine | systemd, supervisord | this lab: supervisord, an OS user for each site |
| beside a GPU or TPU | the same | a queue of its own, as `gpu`, and concurrency = number of devices |

**Auto-scaling**: Airflow starts no edge worker. Each has a fixed concurrency, and the backlog waits as `queued`.
What scales is yours: something that counts the backlog of a queue and starts workers (KEDA or an autoscaling
group), or changes those that run, without a restart:

    airflow edge set-worker-concurrency --edge-hostname site-b --concurrency 2
    airflow edge add-worker-queues --edge-hostname site-a --queues site_b

The same in the UI: *Admin → Edge Worker*. Before work at a site, send it into maintenance: it ends what runs and
takes nothing new (`airflow edge remote-edge-worker-request-maintenance`). Shutting it down from afar
(`shutdown-remote-edge-worker`) ends the process too: then its supervisor decides, here it starts it again.

**What to look for**: the log of `compare`, then that of `capacity`: how many of the jobs in queue `site_b` ran at
once, and where. Change one of the two as above, and run this again.
"""

import logging
import os
import platform
import time
from pathlib import Path

import psutil
from airflow.sdk import Param, dag, task

log = logging.getLogger("airflow.task")

ACCELERATORS = {"nvidia[0-9]*": "GPU", "kfd": "GPU", "accel*": "TPU"}
"""Device files in /dev → what they stand for."""


def place():
    """What this process runs in: a pod, a container, or else the machine itself."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "pod"
    marks = Path("/.dockerenv"), Path("/run/.containerenv")
    return "container" if any(mark.exists() for mark in marks) else "bare metal or virtual machine"


@dag(
    dag_id="35_06_04_edge_worker_deployment",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    params={
        "jobs": Param(4, type="integer", minimum=1, maximum=20, description="backlog in the queue site_b"),
        "seconds": Param(1, type="number", minimum=0, maximum=60, description="how long each takes"),
    },
    doc_md=__doc__,
)
def edge_worker_deployment():
    @task
    def look_around(ti=None):
        """What a site is: its place, its machine, its accelerators, and what keeps its worker alive."""
        worker = psutil.Process().parents()[1]
        # what starts a pod's only process is outside of it, and has no number in there
        keeper = Path(f"/proc/{worker.ppid()}/comm").read_text().strip() if worker.ppid() else "outside"
        found = {
            "site": ti.hostname,
            "queue": ti.queue,
            "place": place(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "user": os.getuid(),
            "worker": worker.pid,
            "keeper": worker.ppid(),
            "accelerators": sorted({ACCELERATORS[kind] for kind in ACCELERATORS if any(Path("/dev").glob(kind))}),
        }
        for name, value in found.items():
            log.info("%-12s %s", name, value or "none")
        log.info("The worker's parent, which may start it again, is pid %s: %s", worker.ppid(), keeper)
        return found

    @task
    def compare(sites):
        """The sites side by side, and what their accelerators mean for queues."""
        for site in sites:
            log.info("%(site)s: %(place)s, %(machine)s, user %(user)s, worker pid %(worker)s", site)
            if site["accelerators"]:
                log.info("%s should serve a queue of its own for %s.", site["site"], site["accelerators"])
            else:
                log.info("%s has no GPU or TPU: tasks that need one belong to another queue.", site["site"])
        return {site["site"]: site["place"] for site in sites}

    @task
    def backlog(params=None):
        """One number per job."""
        return [*range(1, params["jobs"] + 1)]

    @task(queue="site_b")
    def job(number, params=None, ti=None):
        """Waits in the queue until a worker that serves it has a free slot."""
        started = time.time()
        log.info("Job %s runs at %s.", number, ti.hostname)
        time.sleep(params["seconds"])
        return {"site": ti.hostname, "started": started, "ended": time.time()}

    @task
    def capacity(jobs):
        """How many jobs ran at once, and where: the capacity of the queue."""
        jobs = sorted(jobs, key=lambda job: job["started"])
        at_once = [sum(other["started"] <= job["started"] < other["ended"] for other in jobs) for job in jobs]
        took, sites = max(job["ended"] for job in jobs) - jobs[0]["started"], sorted({job["site"] for job in jobs})
        log.info("%s jobs took %.1f s, at most %s at once, at %s.", len(jobs), took, max(at_once), ", ".join(sites))
        log.info("Twice as many at once: set the concurrency of a site higher, or let another site serve the queue.")
        return {"jobs": len(jobs), "at_once": max(at_once), "sites": sites, "seconds": took}

    compare([look_around.override(task_id=f"look_around_{queue}", queue=queue)() for queue in ("site_a", "site_b")])
    capacity(job.expand(number=backlog()))


edge_worker_deployment()
