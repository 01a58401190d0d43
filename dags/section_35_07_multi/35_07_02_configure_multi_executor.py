"""# 35.7.2 Configure several executors

A list, in one option, the same for every component, workers included. The curriculum's example, and this
lab:

    [core]
    executor = CeleryExecutor,KubernetesExecutor
    executor = LocalExecutor,celery:CeleryExecutor,edge:airflow.providers.edge3.executors.EdgeExecutor

* **Default**: the first entry. It runs every task that names no executor.
* **Names**: Airflow's own three go by their class name; any other needs its module path.
* **Aliases**: `alias:path`, or `alias:Class` for Airflow's own, gives an entry a name of yours. A task may
  use alias, path or class; the task instance records the word it used. An alias says what an executor is
  *for*, so that a deployment can change what is behind it and no DAG: `batch:LocalExecutor` here,
  `batch:CeleryExecutor` there.
* **Not allowed**: one executor twice, even under two aliases; CeleryKubernetesExecutor and its like, which
  lists have replaced in Airflow 3.

Each executor needs connections of its own:

| executor | needs |
| --- | --- |
| LocalExecutor | nothing |
| CeleryExecutor | `[celery] broker_url` and `result_backend`; workers reach both |
| EdgeExecutor | `[edge] api_url`; workers reach that only, and share `[api_auth] jwt_secret` |
| KubernetesExecutor | the Kubernetes API, by service account or `[kubernetes_executor] config_file` |

**What to look for**: `connections` tries what is configured; `compare` shows that every name of an executor
leads to it. Entries that this deployment does not have are reported as not applicable.
"""

import logging
import os
import socket
from urllib.parse import urlsplit

import psutil
from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

CONNECTIONS = {
    "LocalExecutor": [],
    "CeleryExecutor": [("celery", "broker_url"), ("celery", "result_backend")],
    "EdgeExecutor": [("edge", "api_url")],
    "KubernetesExecutor": [],
}
STARTED_BY = {
    "airflow scheduler": "LocalExecutor",
    "celeryd": "CeleryExecutor",
    "celery worker": "CeleryExecutor",
    "edge worker": "EdgeExecutor",
}


def entries():
    """The entries of `[core] executor`, in order: class, and every name that a task may use for it."""
    found = []
    for entry in conf.get("core", "executor").split(","):
        alias, _, path = entry.strip().rpartition(":")
        names = {"alias": alias, "path": path if "." in path else "", "class": path.split(".")[-1]}
        found.append({kind: name for kind, name in names.items() if name})
    return found


def running_executor():
    """The executor that started this process, by its ancestors, the nearest first."""
    if "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ:
        return "KubernetesExecutor"
    commands = [" ".join(ancestor.cmdline()) for ancestor in psutil.Process().parents()]
    return next((name for command in commands for mark, name in STARTED_BY.items() if mark in command), "unknown")


def reach(url):
    """Whether something answers at the host and port of the URL; logs them, and nothing else of it."""
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname, address.port or 80), timeout=5):
            outcome = "answers"
    except OSError as error:
        outcome = f"does not answer: {error}"
    log.info("%s://%s:%s %s", address.scheme, address.hostname, address.port, outcome)
    return outcome == "answers"


@dag(
    dag_id="35_07_02_configure_multi_executor",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def configure_multi_executor():
    @task
    def read_list():
        """The list as this worker reads it, and what each entry may be called."""
        value, source = conf.as_dict(display_source=True)["core"]["executor"]
        log.info("[core] executor = %s   (from: %s)", value, source)
        for place, names in enumerate(entries()):
            log.info("%s. %s%s", place + 1, names, "" if place else "   ◀ the default")
        for executor in CONNECTIONS:
            if executor not in {names["class"] for names in entries()}:
                log.info("%s is not in the list: not applicable here.", executor)
        return entries()

    @task
    def connections():
        """Tries what the executors of the list need."""
        found = {}
        for names in entries():
            needs = CONNECTIONS.get(names["class"], [])
            log.info("%s needs %s", names["class"], [f"[{section}] {key}" for section, key in needs] or "nothing")
            found[names["class"]] = {key: reach(conf.get(section, key, fallback="")) for section, key in needs}
        return found

    @task
    def whoami(ti=None):
        """Compares the name that it was given with the executor that started its process."""
        found = {"asked": ti.task.executor, "ran_on": running_executor(), "hostname": ti.hostname}
        log.info("executor=%(asked)r led to %(ran_on)s, host %(hostname)s", found)
        return found

    @task
    def compare(found):
        """Every name of an executor leads to the same one; no name leads to the first entry."""
        expected = {None: entries()[0]["class"]}
        expected |= {name: names["class"] for names in entries() for name in names.values()}
        for each in found:
            each["right"] = each["ran_on"] == expected[each["asked"]]
            log.info("executor=%(asked)r ▶ %(ran_on)s, as configured: %(right)s", each)
        return {"default": expected[None], "names": {str(each["asked"]): each["ran_on"] for each in found}}

    read, connected = read_list(), connections()
    asked = [whoami.override(task_id="by_default")()]
    for names in entries():
        for kind, name in names.items():
            asked.append(whoami.override(task_id=f"{names['class']}_by_{kind}", executor=name)())
    read >> connected >> asked
    compare(asked)


configure_multi_executor()
