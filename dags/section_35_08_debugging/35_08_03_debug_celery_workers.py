"""# 35.8.3 Celery workers: heartbeats, routes, crashes, the broker

| question | where to look | in this run |
| --- | --- | --- |
| is the worker alive? | its heartbeats on the broker, every 2 s | `heartbeats` |
| is it the right worker? | the queues it takes from, beside the queues that tasks name | `routes` |
| did it crash? | its own log, and the tries of its tasks | `crash_*` |
| does it reach the broker? | name, port, password, in that order | `broker` |

**Three kinds of crash**, from the inside out:

* The *task's* process dies, as when the kernel is out of memory. The process above it, its supervisor, sees that at
  once and reports the task as failed: it is retried, if it has `retries`. The worker's log names the signal.
* The *supervisor*, a process of the worker's pool, dies. Celery sees that (`WorkerLostError`), starts a new one, and
  its result says failure; the scheduler believes that result, and the task is retried or failed likewise.
* The whole *worker* dies. Nobody is left to report: the scheduler misses the heartbeats of the task for `[scheduler]
  task_instance_heartbeat_timeout` seconds (300 in production, 30 in these labs) and gives the task up.

A worker that is alive may still be deaf: it answers no `ping` when the broker is away or when it is stopped. Ask the
operating system too (`ps`, the worker's log) before you start another one.

**What to look for**: the tables in the logs; then, of `crash_for_good` and `crash_of_the_pool`, the tries and their
logs. The run fails: a task that crashes without `retries` stays failed, and `watcher` carries that to the run.
"""

import logging
import os
import signal
import socket
import time
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")


def celery_app():
    """The Celery app of the worker that runs this task."""
    from airflow.providers.celery.executors.celery_executor_utils import app  # loaded already in a Celery worker

    if not app.current_task:
        raise RuntimeError("no Celery worker runs this task: run it in the lab celery")
    return app


def reach(url, timeout=3):
    """How far a client comes with a broker's URL: the step that fails, and what that means."""
    parts = urlsplit(url)
    try:
        address = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)[0][4]
    except OSError as error:
        return {"step": "name", "said": str(error), "means": "The name is unknown: misspelled, or no DNS here."}
    try:
        connection = socket.create_connection(address[:2], timeout)
    except TimeoutError as error:
        return {"step": "port", "said": str(error), "means": "No answer: a firewall, or the machine is away."}
    except OSError as error:
        return {"step": "port", "said": str(error), "means": "Refused: nothing listens there; the broker is down."}
    with connection, connection.makefile("rwb") as stream:

        def ask(*words):
            stream.write(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)]))
            stream.flush()
            return stream.readline().decode().strip()

        if parts.password and not (said := ask(b"AUTH", parts.password.encode())).startswith("+"):
            return {"step": "password", "said": said, "means": "The password is wrong: another one than the broker's."}
        if not (said := ask(b"PING")).startswith("+"):
            return {"step": "password", "said": said, "means": "The broker wants a password, and the URL has none."}
    return {"step": "reached", "said": said, "means": "The broker answers."}


@dag(
    dag_id="35_08_03_debug_celery_workers",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "debugging", "intermediate", "failure"],
    params={"seconds": Param(5, type="number", minimum=3, maximum=60, description="how long to listen for heartbeats")},
    doc_md=__doc__,
)
def debug_celery_workers():
    @task
    def heartbeats(params=None):
        """Listens to the workers' heartbeats, and asks each for an answer."""
        app, heard = celery_app(), {}
        deadline = time.monotonic() + params["seconds"]

        def beat(event):
            heard.setdefault(event["hostname"], []).append(event["timestamp"])
            receiver.should_stop = time.monotonic() > deadline

        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": beat})
            try:
                receiver.capture(timeout=params["seconds"], wakeup=False)
            except TimeoutError:
                log.warning("For %s s no heartbeat was heard.", params["seconds"])
        answered = app.control.inspect(timeout=2).ping() or {}
        found = {worker: {"beats": len(heard.get(worker, ())), "answers": worker in answered} for worker in answered}
        for worker, each in sorted(found.items()):
            log.info(
                "%-22s %s heartbeats in %s s; answers: %s", worker, each["beats"], params["seconds"], each["answers"]
            )
        return found

    @task
    def routes():
        """Which workers serve which queue, how many tasks wait there, and where a task that names none would go."""
        app = celery_app()
        served = {}
        for worker, queues in (app.control.inspect(timeout=2).active_queues() or {}).items():
            for queue in queues:
                served.setdefault(queue["name"], []).append(worker)
        with app.connection_for_read() as connection:
            waiting = {name: connection.default_channel.client.llen(name) for name in [*served, "defualt"]}
        default = conf.get("operators", "default_queue")
        found = {name: {"workers": sorted(served.get(name, ())), "waiting": n} for name, n in waiting.items()}
        for name, each in found.items():
            note = " ◀ default_queue" if name == default else ""
            log.info("%-14s %s waiting, served by %s%s", name, each["waiting"], each["workers"] or "NOBODY", note)
        log.info("A misspelled queue, as `defualt`, is no error: its tasks wait for ever. See 35.8.1.")
        return found

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def crash_of_the_task(ti=None):
        """The first try kills its own process, as the kernel does when memory is short; the second one ends well."""
        celery_app()
        if ti.try_number == 1:
            log.info("Process %s kills itself; its supervisor, %s, reports that.", os.getpid(), os.getppid())
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": os.getpid(), "supervisor": os.getppid(), "try": ti.try_number}

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def crash_of_the_pool(ti=None):
        """The first try kills the process above it, one of the worker's pool; the second one ends well."""
        celery_app()
        if ti.try_number == 1:
            log.info("Process %s, above me, is killed: it writes no more of my log.", os.getppid())
            time.sleep(1)  # for it to write this line
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(1)  # it would go on alone, and nobody would hear of it
        return {"pid": os.getpid(), "supervisor": os.getppid(), "try": ti.try_number}

    @task
    def crash_for_good():
        """Kills its own process, and has no retries: it stays failed."""
        celery_app()
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def broker():
        """Tries the broker's URL as it is, and four wrong ones: each fails at another step."""
        url = conf.get("celery", "broker_url")
        parts = urlsplit(url)

        def instead(**changed):
            password, host, port = (changed.get(k, getattr(parts, k)) for k in ("password", "hostname", "port"))
            login = f":{password}@" if password else ""
            return urlunsplit(parts._replace(netloc=f"{login}{host}:{port}"))

        with socket.socket() as free:  # a port that nobody listens on
            free.bind(("127.0.0.1", 0))
            found = {
                "as configured": reach(url),
                "wrong name": reach(instead(hostname="no-such-broker.invalid")),
                "wrong port": reach(instead(port=free.getsockname()[1])),
                "wrong password": reach(instead(password="wrong")),
                "no password": reach(instead(password=None)),
            }
        for what, each in found.items():
            log.info("%-15s %-9s %s (%s)", what, each["step"], each["means"], each["said"])
        return found

    @task(trigger_rule="one_failed")
    def watcher():
        """Fails when a task before it has failed, so that the run does too.

        Source: https://airflow.apache.org/docs/apache-airflow/stable/best-practices.html
        """
        raise RuntimeError("a task of this run has failed")

    crashes = [crash_of_the_task(), crash_of_the_pool(), crash_for_good()]
    [heartbeats(), routes(), broker(), *crashes] >> watcher()


debug_celery_workers()
