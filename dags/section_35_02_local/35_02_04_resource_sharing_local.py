"""# 35.2.4 What tasks share on LocalExecutor

All tasks run on one machine, each in its own process:

| | shared? | so |
| --- | --- | --- |
| files | yes | one task can read what another wrote: the first thing to break on another executor |
| network | yes | one task reaches another on `127.0.0.1`; two tasks cannot listen on the same port |
| variables in memory | **no** | a module's variable set by one task is unset in the next: use XCom |
| RAM and CPU | yes, and they compete | a greedy task slows its neighbours, the scheduler included |

**What to look for**: the log of each `read`, `call` and `recall`, and the slowdown in `contention`: four
tasks that each need the same CPU time take longer together than one alone as soon as there are fewer CPUs
than tasks. `listen` and `call` run at the same time: they need two slots.
"""

import logging
import os
import socket
import tempfile
import time
from pathlib import Path

import psutil
from airflow.sdk import Param, dag, task, task_group

log = logging.getLogger("airflow.task")

NOTES: dict[str, str] = {}
"""In the memory of the process that runs a task; the next task gets a new process and a new, empty dict."""


@dag(
    dag_id="35_02_04_resource_sharing_local",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    params={
        "cpu_seconds": Param(2, type="number", minimum=0.1, maximum=30, description="CPU time of a burner"),
    },
    doc_md=__doc__,
)
def resource_sharing_local():
    @task_group
    def filesystem():
        @task
        def write():
            """Leaves a file behind for another task."""
            handle, path = tempfile.mkstemp(prefix="35_02_04_")
            with os.fdopen(handle, "w") as file:
                file.write(f"written by pid {os.getpid()}")
            log.info("pid %s wrote %s, inode %s", os.getpid(), path, Path(path).stat().st_ino)
            return {"path": path, "inode": Path(path).stat().st_ino, "pid": os.getpid()}

        @task
        def read(written):
            """Finds that file: same machine, same file system. Elsewhere this task would fail."""
            path = Path(written["path"])
            text, inode = path.read_text(), path.stat().st_ino
            path.unlink()
            log.info("pid %s read %r from %s, inode %s", os.getpid(), text, path, inode)
            return {"text": text, "inode": inode, "pid": os.getpid()}

        read(write())

    @task_group
    def network():
        @task
        def listen(ti=None):
            """Listens on 127.0.0.1 until the other task calls."""
            with socket.create_server(("127.0.0.1", 0)) as server:
                server.settimeout(60)
                port = server.getsockname()[1]
                ti.xcom_push(key="port", value=port)
                log.info("pid %s listens on 127.0.0.1:%s", os.getpid(), port)
                try:
                    caller, _ = server.accept()
                except TimeoutError:
                    raise TimeoutError("no call for 60 s: `call` needs a second slot at once") from None
                with caller:
                    message = caller.recv(100).decode()
            log.info("pid %s received %r", os.getpid(), message)
            return {"pid": os.getpid(), "port": port, "message": message}

        @task
        def call(ti=None):
            """Calls the task that listens, at the same time, on the same machine's loopback address."""
            deadline = time.monotonic() + 60
            while (port := ti.xcom_pull(task_ids="network.listen", key="port")) is None:
                if time.monotonic() > deadline:
                    raise TimeoutError("no listener for 60 s: `listen` needs a second slot at once")
                time.sleep(0.2)
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(f"hello from pid {os.getpid()}".encode())
            log.info("pid %s called 127.0.0.1:%s", os.getpid(), port)
            return {"pid": os.getpid(), "port": port}

        listen()
        call()

    @task_group
    def memory():
        @task
        def remember():
            """Sets a variable of the module, in the memory of this process only."""
            NOTES["word"] = "hello"
            used, free = (
                psutil.Process().memory_info().rss // 2**20,
                psutil.virtual_memory().available // 2**20,
            )
            log.info("pid %s: NOTES = %s", os.getpid(), NOTES)
            log.info("This process takes %s MB; %s MB are free, for all tasks together.", used, free)
            return {"pid": os.getpid(), "notes": NOTES, "memory_mb": used, "free_mb": free}

        @task
        def recall():
            """Looks for the variable: another process, so it is not there."""
            log.info("pid %s: NOTES = %s", os.getpid(), NOTES)
            return {"pid": os.getpid(), "notes": NOTES}

        remember() >> recall()

    @task
    def burn(params=None):
        """Computes until it has used its CPU time: the fewer neighbours, the sooner."""
        started, begin, cpu = time.time(), time.monotonic(), time.process_time()
        while time.process_time() - cpu < params["cpu_seconds"]:
            sum(range(10_000))
        used, took = time.process_time() - cpu, time.monotonic() - begin
        log.info("%.1f s of CPU time took %.1f s: slowed down %.1f times.", used, took, took / used)
        span = {"started": started, "ended": time.time(), "seconds": took}
        return {"pid": os.getpid(), **span, "cpu_seconds": used, "slowdown": took / used}

    @task
    def contention(alone, together):
        """Compares one burner alone with four at once."""
        slowdown = sum(each["slowdown"] for each in together) / len(together)
        log.info("Alone on %s CPUs: slowed down %.2f times.", os.cpu_count(), alone["slowdown"])
        log.info("Four at once on %s CPUs: slowed down %.2f times.", os.cpu_count(), slowdown)
        log.info("[core] parallelism lets tasks start; it does not make the machine larger.")
        return {"cpus": os.cpu_count(), "alone": alone["slowdown"], "together": slowdown}

    alone = burn.override(task_id="burn_alone")()
    together = [burn.override(task_id=f"burn_{number}")() for number in range(1, 5)]
    filesystem() >> network() >> memory() >> alone >> together
    contention(alone, together)


resource_sharing_local()
