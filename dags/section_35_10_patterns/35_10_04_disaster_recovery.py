"""# 35.10.4 After the disaster

What is left when every scheduler and every worker of an executor is gone at once, and what comes back by itself:

| what | where it was kept | afterwards |
| --- | --- | --- |
| which tasks are done | metadata database | as before: nothing that succeeded runs again |
| tasks that nobody had taken yet | broker, on disk | taken as soon as there is a worker again |
| tasks that were running | in processes that are gone | failed for want of heartbeats; then their `retries` |
| what a task had done so far | wherever the task put it | the task's own business: see below |
| logs of what was running | files of the worker | up to the last line, where the folder outlived the worker |

**Orphans**: a task that a scheduler had handed over belongs to nobody once that scheduler is gone. The next one, be it
another or the same one restarted, looks for such tasks when it starts and every `[scheduler]
orphaned_tasks_check_interval` seconds: the CeleryExecutor adopts them, by the ids of their messages; the LocalExecutor
cannot, so it resets them, and they run once more. `airflow tasks clear --only-running` does by hand what is left.

**Resume, do not restart**: `process` works through units and notes each in a *checkpoint* that outlives it. In the
first try its process is killed; the second one goes on behind the last note. Each note is written whole or not at
all. Here the notes are files in a folder that all workers share; in production they are in an object store or in the
system that the task fills.

**Failover between executors** does not happen by itself: a task stays with its executor and its queue, and waits. Who
wants a way around writes it down: `primary` fails, and `standby` (`trigger_rule="all_failed"`) does the work on
another executor where one is configured, as in the lab `multi`, else on the queue of another zone.

**Drills**: a recovery that was never tried is a hope. `drill` measures this one: *RPO*, the work that is lost, and
*RTO*, how long nothing went on. To drill the whole, kill all workers and schedulers while `process` runs: give the
run `{"crash_after": 0, "seconds": 5}`. Restoring a database from its backup belongs to it too, and is not shown here.

**What to look for**: the two tries of `process` and their logs; *State* of `primary` and `standby`; the log of `drill`.
"""

import json
import logging
import os
import signal
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from airflow.sdk import Param, TriggerRule, conf, dag, task

log = logging.getLogger("airflow.task")

PRIMARY, STANDBY = "zone_a", "zone_b"
"""Queues of two zones; the LocalExecutor knows no queues and runs tasks of both."""


def other_executor():
    """A second executor of `[core] executor`, by the name that a task may say; None where there is only one."""
    entries = [entry.strip().split(":")[0] for entry in conf.get("core", "executor").split(",")]
    return entries[1] if len(entries) > 1 else None


class Checkpoint:
    """Which units are done, by whom, and when: a file for each, whole or not there."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def note(self, unit, **what):
        fresh = self.folder / f"{unit}.new"
        fresh.write_text(json.dumps({"unit": unit, **what}))
        fresh.replace(self.folder / f"{unit}.json")

    def notes(self):
        found = [json.loads(file.read_text()) for file in self.folder.glob("*.json")]
        return sorted(found, key=lambda note: note["unit"])


@dag(
    dag_id="35_10_04_disaster_recovery",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "patterns", "advanced", "success"],
    params={
        "units": Param(8, type="integer", minimum=1, maximum=50, description="how much there is to do"),
        "seconds": Param(0.3, type="number", minimum=0, maximum=60, description="how long each unit takes"),
        "crash_after": Param(
            3, type="integer", minimum=0, description="units before the first try is killed; 0: it is not"
        ),
        "primary_fails": Param(True, type="boolean", description="whether the primary is out of order"),
    },
    doc_md=__doc__,
)
def disaster_recovery():
    @task(retries=3, retry_delay=timedelta(seconds=1))
    def process(params=None, ti=None, run_id=None):
        """Works through its units; each try begins behind the last unit that is noted."""
        folder = Path(os.environ["AIRFLOW_HOME"], "checkpoints", run_id)
        checkpoint = Checkpoint(folder)
        done = len(checkpoint.notes())
        log.info("Try %s begins behind unit %s of %s, on %s", ti.try_number, done, params["units"], ti.hostname)
        for unit in range(done + 1, params["units"] + 1):
            time.sleep(params["seconds"])
            checkpoint.note(unit, by=ti.try_number, worker=ti.hostname, at=time.time())
            log.info("Unit %s is done and noted.", unit)
            if ti.try_number == 1 and unit == params["crash_after"]:
                log.info("Now the process of this try is killed.")
                os.kill(os.getpid(), signal.SIGKILL)
        notes = checkpoint.notes()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return notes

    @task(queue=PRIMARY)
    def primary(params=None, ti=None):
        """The usual way; out of order here."""
        if params["primary_fails"]:
            raise RuntimeError("the primary is out of order, as this run's parameters ask for")
        return {"done_by": ti.task_id, "worker": ti.hostname}

    @task(trigger_rule=TriggerRule.ALL_FAILED, queue=STANDBY, executor=other_executor())
    def standby(ti=None):
        """The way around, only when the primary has failed for good."""
        log.info("Executor %s, queue %s, worker %s", ti.task.executor or "the default one", ti.queue, ti.hostname)
        return {"done_by": ti.task_id, "worker": ti.hostname}

    @task
    def drill(notes, params=None):
        """What the crash of `process` cost: units lost or done twice, and for how long nothing went on."""
        units = [note["unit"] for note in notes]
        tries = sorted({note["by"] for note in notes})
        pauses = [later["at"] - earlier["at"] for earlier, later in pairwise(notes) if later["by"] != earlier["by"]]
        for note in notes:
            log.info("unit %2s  try %s  on %s", note["unit"], note["by"], note["worker"])
        lost = sorted(set(range(1, params["units"] + 1)) - set(units))
        log.info("RPO: units lost %s, done in %s tries", lost or "none", len(tries))
        log.info("RTO: nothing went on for %s s", [round(pause, 1) for pause in pauses] or "no")
        return {"lost": lost, "tries": tries, "paused": pauses}

    @task(trigger_rule=TriggerRule.ONE_SUCCESS)
    def published(usual, around):
        """Takes the result from whichever way led to one."""
        found = [result for result in (usual, around) if result]
        log.info("Done by %(done_by)s on %(worker)s", found[0])
        return found[0]

    drill(process())
    usual, around = primary(), standby()
    usual >> around
    published(usual, around)


disaster_recovery()
