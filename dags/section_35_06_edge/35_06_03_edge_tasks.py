"""# 35.6.3 Tasks that suit the edge

| rule | because | here |
| --- | --- | --- |
| work on the data where it is | a site's line is thin, XComs go through the database | `collect`, `reduce` |
| stay small | a site is often a small machine, and runs few tasks at once | `reduce` |
| depend on little | what a task imports must be installed at each site | `dependencies` |
| expect the network to fail | it will | `upload` |

`collect` and `reduce` share a file, which on most executors is a mistake (35.2.4). Here it is the point: their
queue `site_a` is served by one site. Raw data stays there until the next run; a summary leaves.

**The network** fails in three ways, and `upload` meets them all: nobody answers (it tries again, a little later
each time, then gives up and leaves the rest to `retries`), the answer is lost (it sends again), and so the same
thing arrives twice (the receiver knows it by its key and keeps it once). Airflow's own requests are repeated
likewise, by the supervisor: `[workers] execution_api_retries`, `max_failed_heartbeats`.

**What to look for**: the bytes in and out in the log of `reduce`, the two tries of `upload`, and that its
receiver kept one record.
"""

import ast
import csv
import json
import logging
import os
import random
import resource
import socket
import sys
import threading
import time
from pathlib import Path

from airflow.sdk import Param, dag, task

log = logging.getLogger("airflow.task")

SENSORS = ("north", "south", "west")


class Receiver(threading.Thread):
    """Stands for the service that wants the summary: it keeps each key once, and its first answer gets lost."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.messages, self.kept = 0, {}

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rw") as stream:
                message = json.loads(stream.readline())
                self.messages += 1
                self.kept[message["key"]] = message["summary"]
                if self.messages > 1:
                    stream.write("kept\n")


def send(address, message):
    """Sends a message; raises ConnectionError unless it is answered."""
    with socket.create_connection(address, timeout=10) as connection, connection.makefile("rw") as stream:
        stream.write(json.dumps(message) + "\n")
        stream.flush()
        if stream.readline() != "kept\n":
            raise ConnectionError("no answer: was it kept?")


def send_patiently(address, message, attempts):
    """Sends until it is answered; waits twice as long after each failure, and a little at random."""
    for attempt in range(1, attempts + 1):
        try:
            send(address, message)
            log.info("attempt %s of %s: answered", attempt, attempts)
            return attempt
        except OSError as error:
            log.info("attempt %s of %s: %s", attempt, attempts, error)
            time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1))
    raise ConnectionError(f"not answered in {attempts} attempts")


@dag(
    dag_id="35_06_03_edge_tasks",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "intermediate", "success"],
    max_active_runs=1,
    params={
        "readings": Param(20_000, type="integer", minimum=3, maximum=1_000_000, description="raw data"),
    },
    default_args={"queue": "site_a"},
    doc_md=__doc__,
)
def edge_tasks():
    @task
    def collect(params=None, ti=None):
        """Writes raw readings to a file of the site, as its sensors would."""
        file = Path(os.environ["AIRFLOW_HOME"], "35_06_03_readings.csv")
        with file.open("w", newline="") as stream:
            rows = csv.writer(stream)
            for number in range(params["readings"]):
                rows.writerow([SENSORS[number % len(SENSORS)], round(random.gauss(20, 3), 2)])
        log.info("Site %s has %s readings in %s, %s bytes.", ti.hostname, params["readings"], file, file.stat().st_size)
        return {"site": ti.hostname, "file": str(file)}

    @task
    def reduce(collected, ti=None):
        """Reads the file line by line, so that memory does not grow with it, and returns the summary alone."""
        file, cpu = Path(collected["file"]), time.process_time()
        summary = {sensor: {"readings": 0, "sum": 0.0, "max": float("-inf")} for sensor in SENSORS}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # the largest so far
        with file.open(newline="") as stream:
            for sensor, value in csv.reader(stream):
                seen, value = summary[sensor], float(value)
                seen.update(readings=seen["readings"] + 1, sum=seen["sum"] + value, max=max(seen["max"], value))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - memory
        bytes_in, bytes_out = file.stat().st_size, len(json.dumps(summary))
        log.info("%s bytes in, %s bytes out: 1 of %s leaves the site.", bytes_in, bytes_out, bytes_in // bytes_out)
        log.info("It took %.2f s of CPU time, and %s MB more memory.", time.process_time() - cpu, memory)
        cost = {"bytes_in": bytes_in, "bytes_out": bytes_out, "memory_mb": memory}
        return {"site": ti.hostname, "summary": summary, "cost": cost}

    @task
    def dependencies():
        """Reads what this file imports: all of it must be there at every site."""
        nodes = [*ast.walk(ast.parse(Path(__file__).read_text()))]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        extra = sorted(name for name in names if name.split(".")[0] not in sys.stdlib_module_names)
        log.info("%s imports, of them not in Python itself: %s", len(names), ", ".join(extra))
        return {"imports": len(names), "beyond_python": extra}

    @task(retries=2, retry_delay=1, retry_exponential_backoff=True)
    def upload(reduced, ti=None):
        """Sends the summary over a network that is down at its first try, and loses an answer at the second."""
        receiver = Receiver()
        if ti.try_number == 1:
            receiver.listener.close()
        else:
            receiver.start()
        message = {"key": ti.run_id, "summary": reduced["summary"]}  # the same at each attempt and try
        attempts = send_patiently(receiver.address, message, attempts=3)
        log.info("The receiver got %s messages and kept %s.", receiver.messages, len(receiver.kept))
        return {"try": ti.try_number, "attempts": attempts, "messages": receiver.messages, "kept": len(receiver.kept)}

    upload(reduce(collect()))
    dependencies()


edge_tasks()
