"""# 35.8.4 One task, three logs

A task that runs on a Celery worker leaves its way in three logs, each with a name of its own for it:

| log | written by | names the task by |
| --- | --- | --- |
| the scheduler's | `airflow scheduler` | task, run and `ti_id`; the name of a pod |
| the worker's | `airflow celery worker` | the id of the Celery message, once beside `ti_id` |
| the task's own | the task, one file for each try | its place: `dag_id=…/run_id=…/task_id=…/attempt=1.log` |

The line *Executing workload* is the joint: it has both ids. Over it `correlate` puts together, for each task, when it
was queued, received, started, ended, and when the scheduler heard of the end. The gaps tell where time goes:

| gap | long when |
| --- | --- |
| queued ▶ received | all workers are busy, or nobody serves the queue |
| received ▶ started | the worker holds more messages than it has processes, or its machine is overloaded |
| started ▶ ended | the task's own work; `times` lists it from the tasks' logs |
| ended ▶ heard | the scheduler is busy, or the result backend is slow |

**With the KubernetesExecutor** one log has it all, for the executor is part of the scheduler: it says when it created a
pod, and what its watch saw of it. The joint is the line *Creating kubernetes pod*, which has the task and the pod's
name: received is *created*, started is *Running*, ended *Succeeded* or *Failed*. The log of a task goes with its pod:
`times` and `errors` find none of the others'.

`errors` looks for patterns that tell what *kind* of failure it was; a list of your own is worth more than any tool.

**What to look for**: the table in the log of `correlate`, then *Event Log* and *Logs* of `fails_once`, where the
pattern came from. All times in these logs are UTC; in the UI they are in your own time zone.
"""

import json
import logging
import os
import re
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import psutil
from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

TIME = r"(?P<time>\d{4}-\d\d-\d\dT[\d:.]+)Z "
QUEUED = TIME + ".*Setting the following tasks to queued state"
INSTANCE = r"^\t<TaskInstance: \S+?\.(?P<task>\w+) (?P<run>\S+) .*ti_id=(?P<ti>[0-9a-f-]{36})>.*try_number=1\)"
RECEIVED = TIME + r".*Task execute_workload\[(?P<message>[0-9a-f-]{36})\] received"
STARTED = TIME + r".*\[(?P<message>[0-9a-f-]{36})\] Executing workload.* ti=\w+\(id=UUID\('(?P<ti>[0-9a-f-]{36})'\)"
ENDED = TIME + r".*Task execute_workload\[(?P<message>[0-9a-f-]{36})\] (?:succeeded|raised)"
HEARD = (
    TIME + r".*Received executor event with state (?P<state>\w+) .*task_id='(?P<task>\w+)',"
    r" run_id='(?P<run>[^']+)', try_number=1,"
)

CREATED = (
    TIME + r".*Creating kubernetes pod for job is .*task_id='(?P<task>\w+)', run_id='(?P<run>[^']+)', try_number=1,"
    r".*with pod name (?P<pod>[^\s,]+)"
)
SEEN = TIME + r".*Event: (?P<pod>\S+) (?:is )?(?P<phase>Running|Succeeded|Failed),"

PATTERNS = {
    r"ConnectionRefusedError|Connection refused": "another system is down, or its address is wrong",
    r"TimeoutError|timed out": "another system is slow, or a firewall swallows what is sent",
    r"MemoryError|SIGKILL|exit_code=-9": "memory is short: the task, or the kernel for it, gave up",
    r"ModuleNotFoundError": "the worker lacks a package that the DAG's author has",
    r"Dag not found": "the worker has another DAG folder than the scheduler",
    r"without a heartbeat": "the worker died, or was stopped, with the task",
    r"Executor .* reported that the task instance .* finished with state failed": "the worker died under the task",
}
"""Pattern → the kind of failure."""

WORK = ["quick", "slow", "fails_once"]

STEPS = ["queued", "received", "started", "ended", "heard"]


def seconds(text):
    """Epoch seconds of a log line's time."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def service_logs(params):
    """The log of each service, line by line, by its name; what is read are only this lab's own services."""
    folder = Path(os.environ["AIRFLOW_HOME"], params["service_logs"])
    return {file.stem: file.read_text(errors="replace").splitlines() for file in sorted(folder.glob("*.log"))}


def task_logs(ti):
    """The lines of each try of each task of a run, as Airflow wrote them: one JSON object a line."""
    folder = Path(conf.get("logging", "base_log_folder"), f"dag_id={ti.dag_id}", f"run_id={ti.run_id}")
    found = {}
    for file in sorted(folder.glob("task_id=*/attempt=*.log")):
        name = f"{file.parent.name.removeprefix('task_id=')} {file.stem}"
        found[name] = [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]
    return found


def ways(params, run_id):
    """The way of each task's first try through the logs of scheduler and workers, of those whose end was heard."""
    rows, messages, heard, pods = {}, {}, {}, {}
    for service, lines in service_logs(params).items():
        queued, received = None, {}
        for line in lines:
            if found := re.match(QUEUED, line):
                queued = seconds(found["time"])
            elif (found := re.match(INSTANCE, line)) and queued and found["run"] == run_id:
                rows[found["ti"]] = {"task": found["task"], "queued": queued}
            elif not line.startswith("\t"):
                queued = None
            if found := re.match(RECEIVED, line):
                received[found["message"]] = seconds(found["time"])
            elif (found := re.match(STARTED, line)) and f"run_id='{run_id}'" in line and found["message"] in received:
                about = {"worker": service, "message": found["message"], "received": received[found["message"]]}
                messages[found["message"]] = {"ti": found["ti"], **about, "started": seconds(found["time"])}
            elif (found := re.match(ENDED, line)) and found["message"] in messages:
                messages[found["message"]]["ended"] = seconds(found["time"])
            elif (found := re.match(HEARD, line)) and found["run"] == run_id:
                pod = next((each for each in pods.values() if each["task"] == found["task"]), None)
                # of a pod it is told when it begins, too, and as the end of one the state that the task has by then
                if "ended" in pod if pod else found["state"] in ("success", "failed"):
                    heard.setdefault(found["task"], seconds(found["time"]))
            elif (found := re.match(CREATED, line)) and found["run"] == run_id:
                about = {"task": found["task"], "worker": service, "message": found["pod"]}
                pods[found["pod"]] = {**about, "received": seconds(found["time"])}
            elif (found := re.match(SEEN, line)) and found["pod"] in pods:
                step = "started" if found["phase"] == "Running" else "ended"
                pods[found["pod"]].setdefault(step, seconds(found["time"]))
    for each in messages.values():
        rows.get(each.pop("ti"), {}).update(each)
    by_task = {each["task"]: each for each in pods.values()}
    for row in rows.values():
        row |= by_task.get(row["task"], {})
        row |= {"heard": heard[row["task"]]} if row["task"] in heard else {}
    return [row for row in rows.values() if all(step in row for step in STEPS)]


@dag(
    dag_id="35_08_04_executor_log_analysis",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "debugging", "intermediate", "success"],
    params={
        "service_logs": Param(
            "../service-logs", type="string", description="folder of the services' logs, seen from AIRFLOW_HOME"
        ),
        "seconds": Param(3, type="number", minimum=0, maximum=60, description="how long `slow` works"),
    },
    doc_md=__doc__,
)
def executor_log_analysis():
    @task
    def quick():
        """Is over at once."""
        log.info("Nothing to do.")

    @task(queue="io_bound")
    def slow(params=None):
        """Works for some seconds, on another worker."""
        log.info("Works for %s s.", params["seconds"])
        time.sleep(params["seconds"])

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def fails_once(ti=None):
        """Its first try meets a system that is down."""
        if ti.try_number == 1:
            raise ConnectionRefusedError("Connection refused by warehouse:5439, on purpose")
        log.info("Now it answers.")

    @task
    def correlate(params=None, ti=None):
        """The way of each task's first try; the last one's end may still be unheard when this begins."""
        deadline = time.monotonic() + 30
        while len(done := ways(params, ti.run_id)) < len(WORK) and time.monotonic() < deadline:
            time.sleep(0.5)
        for row in sorted(done, key=lambda row: row["queued"]):
            gaps = [row[after] - row[before] for before, after in pairwise(STEPS)]
            log.info("%-11s on %-10s message %s", row["task"], row["worker"], row["message"])
            log.info("    queued %.2f ▶ received %.2f ▶ started %.2f ▶ ended %.2f ▶ heard", *gaps)
        return done

    @task
    def times(ti=None):
        """How long each try took, by the first and the last line of its own log; the longest first."""
        spans = {
            name: seconds(lines[-1]["timestamp"][:-1]) - seconds(lines[0]["timestamp"][:-1])
            for name, lines in task_logs(ti).items()
            if lines
        }
        for name, span in sorted(spans.items(), key=lambda item: -item[1]):
            log.info("%6.2f s  %s", span, name)
        return spans

    @task
    def errors(params=None, ti=None):
        """Which patterns are in the logs of this run's tries, and in the services' lines that name this run."""
        texts = {name: [json.dumps(line) for line in lines] for name, lines in task_logs(ti).items()}
        for service, lines in service_logs(params).items():
            texts[service] = [line for line in lines if ti.run_id in line]
        found = []
        for pattern, kind in PATTERNS.items():
            places = sorted(name for name, lines in texts.items() if any(re.search(pattern, line) for line in lines))
            if places:
                found.append({"pattern": pattern, "kind": kind, "in": places})
                log.info("%s: %s (%s)", kind, ", ".join(places), pattern)
        log.info("%s of %s patterns found.", len(found), len(PATTERNS))
        return found

    @task
    def resources():
        """What each worker's processes hold and have used: a machine that is short of either shows in every gap."""
        from airflow.providers.celery.executors.celery_executor_utils import app

        if app.current_task is None:
            log.warning("No Celery worker runs this task: run it in the lab celery.")
            return {}
        found, here = {}, app.current_task.request.hostname.partition("@")[2]
        for worker, stats in sorted((app.control.inspect(timeout=2).stats() or {}).items()):
            pool, used, memory = stats["pool"]["processes"], stats["rusage"], None
            if worker.partition("@")[2] == here:  # those of another machine or container are not to be seen
                memory = sum(psutil.Process(pid).memory_info().rss for pid in (stats["pid"], *pool)) // 2**20
            cpu = used["utime"] + used["stime"]
            found[worker] = {"pid": stats["pid"], "pool": pool, "memory_mb": memory, "cpu_seconds": cpu}
            log.info("%-22s %s processes, %s MB, %.1f s of CPU in its main process", worker, 1 + len(pool), memory, cpu)
        load, free = os.getloadavg()[0], psutil.virtual_memory().available // 2**20
        log.info("This machine: load %.1f on %s CPUs, %s MB free", load, os.cpu_count(), free)
        return {"workers": found, "load": load, "free_mb": free}

    [quick(), slow(), fails_once()] >> correlate() >> times() >> errors() >> resources()


executor_log_analysis()
