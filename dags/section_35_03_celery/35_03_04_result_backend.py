"""# 35.3.4 What the result backend holds, and what it does not

| | carried by | kept in | read by |
| --- | --- | --- | --- |
| that a message was worked off | the worker | `celery_taskmeta` of the result backend | the scheduler |
| the state of the task (`success`, `failed`) | the execution API | `task_instance` | everybody |
| the task's return value, an XCom | the execution API | `xcom` | other tasks |

In Airflow 3 "XCom through Celery" does not exist: neither the message that starts a task nor the result
that ends it holds an XCom. Celery's result is always `None`, and `SUCCESS` only means that the worker did
its part: the result of a task that *failed* says `SUCCESS` too. The scheduler reads results to learn of
messages that a worker could not work off, and to take over those of a scheduler that died.

**Configuration**: `[celery] result_backend`, by default the metadata database. `[celery]
task_track_started` adds the row when the task starts, not only when it ends; with it a second scheduler can
adopt the tasks of one that died.

**Cleanup**: Celery calls a result expired after `result_expires`, one day, but only Celery's own beat would
remove it, and Airflow does not run that. So rows pile up, one per try of each task, until somebody removes
them: `airflow db clean --tables celery_taskmeta --clean-before-timestamp …`, where the result backend is
the metadata database, or Celery's own clean-up, as the task `cleanup` does. XComs are not touched by
either.

**What to look for**: the log of `compare`: for each task its state in Airflow, its result in Celery, its
XCom. `fail` fails on purpose.
"""

import json
import logging
import time
import uuid
from datetime import datetime, timedelta, timezone

from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")


def message():
    """The Celery message that brought the running task to this worker; None where no Celery worker runs it."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    return app.current_task and app.current_task.request


def results():
    """The result backend, over connections of its own: a task is a fork of its worker, and may not share those.

    None where no Celery worker runs the task: there are no results then.
    """
    from airflow.providers.celery.executors.celery_executor_utils import create_celery_app

    return create_celery_app(conf).backend if message() else None


@dag(
    dag_id="35_03_04_result_backend",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def result_backend():
    @task
    def configuration():
        """Where results go, how long they stay, and where that was set."""
        options = conf.as_dict(display_source=True)["celery"]
        for key in ("result_backend", "task_track_started", "result_backend_sqlalchemy_engine_options"):
            value, source = options.get(key, (None, None))
            log.info("[celery] %s = %s   (from: %s)", key, value, source)
        if (backend := results()) is None:
            log.warning("No Celery worker runs this task, so there are no results: run this in the lab celery.")
            return None
        log.info("That is Celery's %s; a result expires after %s.", type(backend).__name__, backend.expires)
        expires = backend.expires.total_seconds()
        return {"backend": type(backend).__name__, "from": options["result_backend"][1], "expires_seconds": expires}

    @task
    def produce(ti=None):
        """Returns a value, an XCom. While it runs, its result in Celery is STARTED."""
        request = message()
        ti.xcom_push(key="celery_task", value=request and request.id)
        if request:
            row = results().get_task_meta(request.id)
            log.info("My result in Celery, while I run: %s, %s", row["status"], row["result"])
        log.info("My return value goes through the execution API to the metadata database.")
        return {"answer": 42, "while_running": request and row["status"]}

    @task
    def fail(ti=None):
        """Fails on purpose: Airflow says failed, Celery says SUCCESS."""
        request = message()
        ti.xcom_push(key="celery_task", value=request and request.id)
        raise RuntimeError("on purpose: compare this state with Celery's result")

    @task(trigger_rule="all_done")
    def compare(ti=None):
        """What became of each task in Airflow, in Celery, and as an XCom."""
        backend, found = results(), {}
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=["produce", "fail"], run_ids=[ti.run_id])[ti.run_id]
        for name in ("produce", "fail"):
            celery_task = ti.xcom_pull(task_ids=name, key="celery_task")
            if celery_task is None:
                log.warning("No Celery worker ran %s, so it has no result.", name)
                continue
            deadline = time.monotonic() + 10
            while (row := backend.get_task_meta(celery_task, cache=False))["status"] == "STARTED":
                if time.monotonic() > deadline:  # the worker adds it just after the task has ended
                    break
                time.sleep(0.2)
            found[name] = {
                "celery_task": celery_task,
                "airflow_state": states[name],
                "celery_state": row["status"],
                "celery_result": row["result"],
                "xcom": ti.xcom_pull(task_ids=name),
            }
            log.info("%s: Airflow says %s, Celery says %s", name, states[name], row["status"])
            log.info("%s: result in Celery %s, XCom %s", name, row["result"], found[name]["xcom"])
        if request := message():
            workload = json.loads(request.args[0])
            log.info("The message that started this task holds %s: no XCom either.", sorted(workload))
        return found

    @task
    def cleanup(compared):
        """Adds a result that is two days old, and has Celery remove what has expired."""
        if (backend := results()) is None:
            log.warning("No Celery worker runs this task, so there is nothing to clean up.")
            return None
        row = backend.task_cls(str(uuid.uuid4()))
        row.status, row.date_done = "SUCCESS", datetime.now(timezone.utc) - timedelta(days=2)
        old = row.task_id
        with backend.ResultSession() as session:
            session.add(row)
            session.commit()
        log.info("Added a result that is two days old: %s", backend.get_task_meta(old, cache=False)["status"])
        backend.cleanup()
        gone = backend.get_task_meta(old, cache=False)["status"]
        log.info("After the clean-up it is %s: what Celery says of every result that it does not have.", gone)
        kept = {name: backend.get_task_meta(each["celery_task"])["status"] for name, each in compared.items()}
        with backend.ResultSession() as session:
            rows = session.query(backend.task_cls).count()
        log.info("%s results stay, those of this run among them: %s", rows, kept)
        return {"old": old, "gone": gone, "kept": kept, "rows": rows}

    configured, compared = configuration(), compare()
    configured >> [produce(), fail()] >> compared
    cleanup(compared)


result_backend()
