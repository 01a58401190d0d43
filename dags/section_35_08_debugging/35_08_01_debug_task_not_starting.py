"""# 35.8.1 Why does my task not start?

Before a task runs it passes through three hands. Its state says who holds it, and so where to look:

| state | who holds it | what may hold it back |
| --- | --- | --- |
| none | its DAG | the DAG is paused, its run waits for another run, a task before it, `depends_on_past` |
| `scheduled` | the scheduler | its pool is full or missing, `max_active_tasks`, `[core] parallelism` |
| `queued` | the executor, with workers | nobody takes from its queue, all are busy, the broker does not answer |
| `queued` | the executor, with pods | its creation was refused, no node fits, its image is not to be had |

First of all: does the scheduler run? Without it, nothing passes from hand to hand, and no log line says so.

`diagnose` in this file asks these questions in that order, through the REST API and over the broker, or of Kubernetes,
and answers with the cause, the fact behind it and the cure. It finds them for any run, also where no task can start:

    python 35_08_01_debug_task_not_starting.py DAG_ID RUN_ID     # in the environment of any component

This run has three tasks that do not start: one in a queue that nobody serves, one in a pool that does not exist,
and one behind the first. `diagnose_run` finds out why, `treat` does what it advises, then they run. The run is
failed on purpose in the end: a run that needed help is no success.

**With the KubernetesExecutor** queues are nothing but a word: there the first task wants a node with the label
`disk=35-08-01`, and that cure is yours: `kubectl label node NODE disk=35-08-01`. A task's pod knows no password and may
ask nobody; those of the tasks that look have the secret and the account for it (`LOOKS`).

**Resources**: `[core] parallelism` counts tasks, queued ones too; how many really run is decided by the slots of the
workers. The scheduler's log names full pools and reached limits, but says nothing of reached parallelism.

**What to look for**: the log of `diagnose_run`, beside *Task Instances* while the three wait, and what the scheduler
said of them.
"""

import json
import logging
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Param, conf, dag, task

log = logging.getLogger("airflow.task")

QUEUE, POOL = "gpu", "35_08_01_missing"
"""What nobody serves, and what does not exist."""

NODE = {"disk": "35-08-01"}
"""Label that no node has."""

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod that may ask the Kubernetes API finds with what."""

STUCK = ["nobody_takes_me", "behind", "in_no_pool"]

CAUSES = {
    "scheduler": (
        "The scheduler does not run: nobody looks at the task.",
        "Start the scheduler; its log says why it ended.",
    ),
    "paused": ("The DAG is paused: its runs wait, and so do their tasks.", "Unpause the DAG."),
    "max_active_runs": (
        "The run itself waits: as many runs of the DAG are active as it allows.",
        "Wait for them, end one, or raise max_active_runs of the DAG.",
    ),
    "past": (
        "It waits for its own past: depends_on_past, and in the run before it has not been successful.",
        "Repair the run before: clear that task, or mark it as success.",
    ),
    "upstream": ("A task before it has not ended as it must.", "Look at the tasks before it: they hold it back."),
    "pool_missing": ("Its pool does not exist.", "Create the pool, or correct its name in the task."),
    "pool_too_small": (
        "It asks for more slots than its pool has: it can never start.",
        "Lower pool_slots of the task, or enlarge the pool.",
    ),
    "pool_full": ("Its pool is full.", "Wait for the tasks that hold the slots, or enlarge the pool."),
    "max_active_tasks": (
        "As many tasks of the run are queued or running as its DAG allows.",
        "Wait for them, or raise max_active_tasks of the DAG.",
    ),
    "task_concurrency": (
        "As many instances of this task are running as the task allows.",
        "Wait for them, or raise max_active_tis_per_dag of the task.",
    ),
    "parallelism": (
        "Nothing in its DAG or its pool holds it back: the scheduler has no slot left for any task.",
        "Wait for other tasks, or raise [core] parallelism of the scheduler, if the workers have slots for more.",
    ),
    "broker": ("The broker does not answer: no worker hears of the task.", "Start the broker, check its address."),
    "queue": (
        "No worker takes tasks from its queue.",
        "Start a worker with this queue, or correct the name of the queue in the task.",
    ),
    "workers_busy": (
        "All slots of the workers of its queue are taken: it waits in the broker.",
        "Wait, or give the queue more slots: another worker, or a larger --concurrency.",
    ),
    "kubernetes_api": (
        "The Kubernetes API does not answer who asks here.",
        "Ask from the scheduler's pod, which may; if it is not answered either, no pod is made.",
    ),
    "no_pod": (
        "The executor has it, and there is no pod of it: its creation was refused, or comes in a moment.",
        "Read the answer of the API in the scheduler's log: a quota, Pod Security, an account.",
    ),
    "no_node": (
        "Its pod waits: no node fits.",
        "Label or add a node, free what others hold, or ask for less: the fact says what is missing.",
    ),
    "image": ("Its pod waits for its image.", "Correct registry, name and tag; add imagePullSecrets if it is private."),
    "retry": ("It failed, and waits for its next try.", "Wait for its retry_delay; the log of the last try says why."),
    "starting": ("Nothing holds it back.", "Look again: it should start within seconds."),
}
"""Cause → what it means, and what to do."""

ENDED = ("running", "success", "failed", "skipped", "upstream_failed", "removed")


def api(method, path, body=None, found=()):
    """An answer of this deployment's REST API; None for the HTTP status `found`."""
    # where components reach it, which may be another address than people use
    base = conf.get("core", "execution_api_server_url").rstrip("/").removesuffix("/execution")

    def send(method, url, body, headers):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    password = json.loads(Path(conf.get("core", "simple_auth_manager_passwords_file")).read_text())["admin"]
    token = send("POST", f"{base}/auth/token", {"username": "admin", "password": password}, {})["access_token"]
    try:
        return send(method, f"{base}/api/v2/{path}", body, {"Authorization": f"Bearer {token}"})
    except urllib.error.HTTPError as error:
        if error.code not in found:
            raise
        return None


def workers():
    """Worker → the queues from which it takes tasks, its slots, and how many tasks it holds.

    Raises a ConnectionError when the broker does not answer.
    """
    from airflow.providers.celery.executors.celery_executor_utils import app

    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1)
    except Exception as error:  # each kind of broker has errors of its own
        raise ConnectionError(str(error)) from error
    inspect = app.control.inspect(timeout=2)
    queues, stats, active = inspect.active_queues() or {}, inspect.stats() or {}, inspect.active() or {}
    return {
        worker: {
            "queues": sorted(queue["name"] for queue in queues[worker]),
            "slots": stats[worker]["pool"]["max-concurrency"],
            "busy": len(active.get(worker, ())),
        }
        for worker in queues
        if worker in stats
    }


def depth(queue):
    """How many messages wait in a queue of the broker."""
    from airflow.providers.celery.executors.celery_executor_utils import app

    with app.connection_for_read() as connection:
        return connection.default_channel.client.llen(queue)


def scheduler_held(dag, run, ti):
    """Cause and fact for a task that the scheduler has not handed to the executor."""
    scheduler = api("GET", "monitor/health")["scheduler"]
    if scheduler["status"] != "healthy":
        return "scheduler", f"its last heartbeat was at {scheduler['latest_scheduler_heartbeat']}"
    if dag["is_paused"]:
        return "paused", f"{dag['dag_id']} is paused, the run is {run['state']}"
    if run["state"] == "queued":
        active = api("GET", f"dags/{dag['dag_id']}/dagRuns?state=running")["total_entries"]
        full = active >= dag["max_active_runs"]
        return "max_active_runs" if full else "starting", f"{active} of {dag['max_active_runs']} runs are active"

    place = f"dags/{dag['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances"
    unmet = api("GET", f"{place}/{ti['task_id']}/dependencies")["dependencies"]
    reasons = {each["name"]: each["reason"] for each in unmet}
    for name, cause in (("Previous Dagrun State", "past"), ("Trigger Rule", "upstream")):
        if name in reasons:
            return cause, reasons[name]
    if ti["state"] is None:
        return "starting", "all that it depends on is met"

    pool = api("GET", f"pools/{ti['pool']}", found=[404])
    if pool is None:
        return "pool_missing", f"there is no pool {ti['pool']}"
    slots = f"{pool['open_slots']} of {pool['slots']} slots of {ti['pool']} are open, it needs {ti['pool_slots']}"
    if ti["pool_slots"] > pool["slots"]:
        return "pool_too_small", slots
    if ti["pool_slots"] > pool["open_slots"]:
        return "pool_full", slots
    if "Task Concurrency" in reasons:
        return "task_concurrency", reasons["Task Concurrency"]
    active = api("GET", f"{place}?state=queued&state=running")["total_entries"]
    if active >= dag["max_active_tasks"]:
        return "max_active_tasks", f"{active} of {dag['max_active_tasks']} are queued or running"
    everywhere = api("GET", "dags/~/dagRuns/~/taskInstances?state=queued&state=running")["total_entries"]
    return "parallelism", f"{everywhere} tasks are queued or running in all DAGs together"


def configured_executors():
    """What a task may call each executor of `[core] executor` → its class; nothing, the default, is the first's."""
    entries = [entry.strip().rpartition(":") for entry in conf.get("core", "executor").split(",")]
    classes = {name: path.rpartition(".")[2] for alias, _, path in entries for name in (alias or path, path)}
    return {None: next(iter(classes.values())), **classes, **{name: name for name in classes.values()}}


def pods():
    """Every task's pod in the namespace of the executor, as Kubernetes shows it to this pod's service account."""
    place = f"/api/v1/namespaces/{conf.get('kubernetes_executor', 'namespace')}/pods"
    url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}{place}"
    request = urllib.request.Request(
        f"{url}?labelSelector=kubernetes_executor%3DTrue",
        headers={"Authorization": f"Bearer {Path(ACCOUNT, 'token').read_text()}"},
    )
    trusted = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
        return json.load(answer)["items"]


def pod_held(ti):
    """Cause and fact for a task that the KubernetesExecutor has, but whose pod does not run."""
    names = {"dag_id": ti["dag_id"], "run_id": ti["dag_run_id"], "task_id": ti["task_id"]}
    try:
        own = [pod for pod in pods() if names.items() <= pod["metadata"].get("annotations", {}).items()]
    except OSError as error:
        return "kubernetes_api", str(error)
    if not own:
        return "no_pod", f"of {ti['task_id']} there is no pod"
    name, status = own[-1]["metadata"]["name"], own[-1]["status"]
    for condition in status.get("conditions", ()):
        if (condition["type"], condition["status"]) == ("PodScheduled", "False"):
            return "no_node", f"{name}: {condition.get('message', '')}"
    for each in status.get("containerStatuses", ()):
        waiting = each["state"].get("waiting", {})
        if "Image" in waiting.get("reason", ""):
            return "image", f"{name}: {waiting['reason']}: {waiting.get('message', '')}"
    return "starting", f"{name} is {status['phase']}"


def worker_held(ti):
    """Cause and fact for a task that the CeleryExecutor has, but no worker runs."""
    try:
        there, waiting = workers(), depth(ti["queue"])
    except ConnectionError as error:
        return "broker", str(error)
    serving = {worker: each for worker, each in there.items() if ti["queue"] in each["queues"]}
    if not serving:
        known = sorted({queue for each in there.values() for queue in each["queues"]})
        return "queue", f"its queue is {ti['queue']}, {waiting} wait there; the workers serve {', '.join(known)}"
    slots, busy = sum(each["slots"] for each in serving.values()), sum(each["busy"] for each in serving.values())
    fact = f"{busy} of {slots} slots of {', '.join(sorted(serving))} are taken, {waiting} wait in {ti['queue']}"
    return "workers_busy" if busy >= slots else "starting", fact


def diagnose(dag_id, run_id, *task_ids):
    """Why tasks of a run have not started: all of them, or those named; a row for each."""
    dag, run = api("GET", f"dags/{dag_id}/details"), api("GET", f"dags/{dag_id}/dagRuns/{run_id}")
    rows = []
    for ti in api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"]:
        if ti["state"] in ENDED or (task_ids and ti["task_id"] not in task_ids):
            continue
        if ti["state"] == "queued":
            in_a_pod = configured_executors().get(ti["executor"]) == "KubernetesExecutor"
            cause, fact = pod_held(ti) if in_a_pod else worker_held(ti)
        elif ti["state"] == "up_for_retry":
            cause, fact = "retry", f"try {ti['try_number']} ended at {ti['end_date']}"
        else:
            cause, fact = scheduler_held(dag, run, ti)
        meaning, cure = CAUSES[cause]
        found = {"cause": cause, "meaning": meaning, "fact": fact, "cure": cure}
        rows.append({"task": ti["task_id"], "state": ti["state"], **found})
    return rows


def of_pods():
    """The `executor_config` of a pod that no node takes, and of one that may look; nothing where tasks have none."""
    if configured_executors()[None] != "KubernetesExecutor":
        return {}, {}
    from kubernetes.client import models as k8s  # takes seconds: not where nobody needs it

    def pod(metadata=None, mounts=None, **spec):
        base = k8s.V1Container(name="base", volume_mounts=mounts)
        return {"pod_override": k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=[base], **spec))}

    secret = k8s.V1Volume(name="passwords", secret=k8s.V1SecretVolumeSource(secret_name="airflow-passwords-json"))
    place = conf.get("core", "simple_auth_manager_passwords_file").rpartition("/")[0]
    looks = pod(
        metadata=k8s.V1ObjectMeta(labels={"reaches": "kubernetes-api"}),  # the network policy lets such pods through
        mounts=[k8s.V1VolumeMount(name="passwords", mount_path=place, read_only=True)],
        volumes=[secret],
        service_account_name="airflow-pod-reader",
        automount_service_account_token=True,
    )
    return pod(node_selector=NODE), looks


WAITS, LOOKS = of_pods()


@dag(
    dag_id="35_08_01_debug_task_not_starting",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=15),
    tags=["reference", "debugging", "intermediate", "failure"],
    params={
        "patience": Param(5, type="number", minimum=1, maximum=60, description="seconds in which nothing must change"),
        "scheduler_log": Param(
            "../service-logs/scheduler.log", type="string", description="the scheduler's log, seen from AIRFLOW_HOME"
        ),
    },
    doc_md=__doc__,
)
def debug_task_not_starting():
    @task(queue=QUEUE, executor_config=WAITS)
    def nobody_takes_me():
        """Is sent to a queue from which no worker takes tasks, or has a pod that no node takes."""
        log.info("Somebody takes me now.")

    @task(pool=POOL)
    def in_no_pool():
        """Asks for a slot in a pool that does not exist."""
        log.info("My pool exists now.")

    @task
    def behind():
        """Comes after a task that does not start."""
        log.info("The task before me has ended.")

    @task(executor_config=LOOKS)
    def diagnose_run(params=None, ti=None):
        """Waits until nothing moves any more, and says of each task why it does not start."""
        before, since, deadline = [], time.monotonic(), time.monotonic() + 120
        while time.monotonic() < min(since + params["patience"], deadline):
            found = diagnose(ti.dag_id, ti.run_id, *STUCK)
            causes = [(row["task"], row["cause"]) for row in found]
            if causes != before:
                before, since = causes, time.monotonic()
            time.sleep(0.5)
        for row in found:
            log.info("%s (state: %s): %s", row["task"], row["state"] or "none", row["meaning"])
            log.info("    because %s", row["fact"])
            log.info("    %s", row["cure"])
        return found

    @task
    def review_scheduler_log(params=None, ti=None):
        """What the scheduler said of this run: which task it queued, and of which it said that it cannot."""
        file, heading = Path(os.environ["AIRFLOW_HOME"], params["scheduler_log"]), ""
        if not file.exists():
            log.warning("There is no %s: set the parameter scheduler_log.", file)
            return None
        said = {"queued": [], "refused": ""}
        for line in file.read_text(errors="replace").splitlines():
            if not line.startswith("\t"):
                heading = line
            if f"'{POOL}' will not be scheduled" in line:
                said["refused"] = line
            if "to queued state" in heading and f" {ti.run_id} " in line:
                said["queued"] += [name for name in STUCK if f".{name} " in line]
        log.info("The scheduler queued %s.", said["queued"])
        log.info("It said: %s", said["refused"])
        return said

    @task(trigger_rule="all_done", executor_config=LOOKS)
    def treat():
        """Does what was advised: this worker takes from the queue too, and the pool is created."""
        from airflow.providers.celery.executors.celery_executor_utils import app

        if app.current_task is None:
            log.warning("No Celery worker runs this task, so there is no queue to serve.")
            log.warning("A node is for you to label: kubectl label node NODE %s=%s", *next(iter(NODE.items())))
        else:
            app.control.add_consumer(QUEUE, destination=[app.current_task.request.hostname], reply=True)
        api("POST", "pools", {"name": POOL, "slots": 1}, found=[409])
        return time.time()

    @task(trigger_rule="all_done", executor_config=LOOKS)
    def tidy_up():
        """Takes the treatment back."""
        from airflow.providers.celery.executors.celery_executor_utils import app

        if app.current_task is not None:
            app.control.cancel_consumer(QUEUE, reply=True)
        api("DELETE", f"pools/{POOL}", found=[404])
        return workers() if app.current_task else {}

    @task(trigger_rule="all_done")
    def verdict(found):
        """Fails on purpose: tasks of this run did not start by themselves."""
        raise RuntimeError(f"on purpose: {len(found)} tasks did not start, for {[row['cause'] for row in found]}")

    found, treated, unserved, last = diagnose_run(), treat(), nobody_takes_me(), behind()
    unserved >> last
    found >> review_scheduler_log() >> treated
    [treated, last, in_no_pool()] >> tidy_up() >> verdict(found)


debug_task_not_starting()

if __name__ == "__main__":
    print(json.dumps(diagnose(*sys.argv[1:]), indent=1))
