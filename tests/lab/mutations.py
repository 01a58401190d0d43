"""What breaks the point of each verifier: a list of changes to a running lab, and what its failure must then say.

A verifier that no mutation turns red has not shown that it looks. Each change is taken back, whatever happens
while it is applied.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from labs import processes
from labs.lab import Lab
from labs.paths import run_directory
from labs.waiting import until
from stacks.catalogue import EDGE


@dataclass(frozen=True)
class Mutation:
    """One change to a running lab.

    Attributes:
        scenarios: part of the name of each scenario that must fail, and a pattern for what one of its checks says.
        change: makes the change on the way in and takes it back on the way out.
        long: whether it is left to `./lab test --all`, to save minutes; its scenarios may take as long then.
    """

    name: str
    scenarios: Mapping[str, str]
    change: Callable[[Lab], AbstractContextManager[object]]
    long: bool = False

    def applied(self, lab: Lab) -> AbstractContextManager[object]:
        """The lab, changed."""
        return self.change(lab)


def _options(options: Mapping[str, str]) -> Callable[[Lab], AbstractContextManager[object]]:
    """Other Airflow options, which the lab's record knows too."""
    return lambda lab: lab.reconfigured(options)


def _environment(service: str, variables: Mapping[str, str]) -> Callable[[Lab], AbstractContextManager[object]]:
    """A service with environment variables that no record of the lab knows."""
    exports = "".join(f"export {name}={value}\n" for name, value in variables.items())
    return partial(_script, service, r"^(?=exec )", exports)


@contextmanager
def _script(service: str, pattern: str, replacement: str, lab: Lab) -> Iterator[None]:
    """A service started by a script in which the only match of `pattern` is replaced."""
    from scenarios.faulting import Faults  # these take seconds to import
    from scenarios.faulting_process import ProcessServices

    home = run_directory(lab.name)
    faults = Faults(ProcessServices(home, lab.outputs["services"]), lab.airflow(), lambda _label, _steps: None)
    script = home / "programs" / f"{service}.sh"
    original = script.read_text()
    changed, count = re.subn(pattern, replacement, original, flags=re.MULTILINE)
    assert count == 1
    try:
        with faults.stopped(service):
            script.write_text(changed)
        yield
    finally:
        with faults.stopped(service):
            script.write_text(original)


@contextmanager
def _serves(site: str, queue: str, lab: Lab) -> Iterator[None]:
    """A site that serves one more queue."""
    from scenarios.faulting_process import ProcessServices
    from scenarios.sites import Sites

    sites = Sites(lab.airflow(), ProcessServices(run_directory(lab.name), lab.outputs["services"]))
    sites.add_queue(site, queue)
    try:
        before = sites.all()[site]
        sites.wait(site, lambda seen: seen.heartbeat > before.heartbeat, what="told of it")
        yield
    finally:
        sites.remove_queue(site, queue)


@contextmanager
def _publishes(lab: Lab) -> Iterator[None]:
    """A container of the lab that publishes a port of its own."""
    from labs.daemon import OWNER, daemon

    with daemon() as client:
        one = lab.outputs["services"]["scheduler"][0]["name"]
        scheduler = client.containers.get(f"airflow-lab-{lab.name}-{one}")
        made = client.containers.run(
            scheduler.image,
            ["sleep", "600"],
            entrypoint=[],
            detach=True,
            init=True,
            labels={OWNER: str(run_directory(lab.name))},
            ports={"8081/tcp": ("127.0.0.1", None)},
        )
        try:
            yield
        finally:
            made.remove(force=True)


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Work in a thread of its own, which ends when the event that it is given is set."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _cut_again(service: str, lab: Lab) -> Iterator[None]:
    """A container that is taken off its network once more, when whoever took it off has put it back."""
    from docker.errors import NotFound

    from labs.daemon import daemon

    name = f"airflow-lab-{lab.name}"

    def watch(over: threading.Event) -> None:
        with daemon() as client:
            network, was_off = client.networks.get(name), False
            while not over.wait(0.2):
                with suppress(NotFound):  # it is being made anew
                    container = client.containers.get(f"{name}-{service}")
                    on = name in container.attrs["NetworkSettings"]["Networks"]
                    if on and was_off:
                        network.disconnect(container)
                        return
                    was_off = not on

    with _meanwhile(watch):
        yield


@contextmanager
def _on_the_network(service: str, lab: Lab) -> Iterator[None]:
    """A container of the lab on the network of those that reach each other."""
    from labs.daemon import daemon

    with daemon() as client:
        network = client.networks.get(f"airflow-lab-{lab.name}")
        network.connect(f"airflow-lab-{lab.name}-{service}")
        try:
            yield
        finally:
            network.disconnect(f"airflow-lab-{lab.name}-{service}")


def _leans_on_the_first_api_server(lab: Lab) -> AbstractContextManager[object]:
    """The second zone reports to the API server that the first one knows."""
    address = lab.outputs["services"]["api-server"][0]["endpoints"]["http"]
    url = f"http://{address}/execution/"
    return _environment("zone-b-1", {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url})(lab)


def _past_the_pool(lab: Lab) -> AbstractContextManager[object]:
    """A scheduler that is given the database's own address."""
    (address,) = lab.outputs["services"]["metadata-database"][0]["endpoints"].values()
    return _script("scheduler-2", r"^(export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=[^@]+@)[^/]+", rf"\g<1>{address}", lab)


@contextmanager
def _queue_map(lab: Lab) -> Iterator[None]:
    """The Variable that sends heavy work to another queue than the table of 35.5.4 says."""
    from scenarios.changing import variable, wait_for_queue

    airflow, place = lab.airflow(), ("35_05_04_queue_abstraction", "heavy")
    try:
        with variable(airflow, "queue_map", {"LocalExecutor": {"heavy": "big"}}):
            wait_for_queue(airflow, *place, "big")
            yield
    finally:
        wait_for_queue(airflow, *place, "default")


EDITS: Mapping[str, tuple[str, str]] = {
    # nothing keeps long tasks from holding all slots
    "35_10_02_mixed_workloads": ('@task(**place("long"), max_active_tis_per_dagrun=1)', '@task(**place("long"))'),
    # a try does not look at what is noted
    "35_10_04_disaster_recovery": ("done = len(checkpoint.notes())", "done = 0"),
    # the stations no longer wait for each other
    "35_01_01_executor_architecture": ("    stations[0] >> stations[1] >> stations[2]\n", ""),
    # a task is tied to executors that have such a queue
    "35_01_02_portable_dag": ("    @task\n    def transform(", '    @task(queue="big")\n    def transform('),
    # nothing holds the tasks of a run back
    "35_02_03_max_active_tasks_per_dag": ("    max_active_tasks=2,\n", ""),
    # a task leaves its files to the next one
    "35_05_01_any_executor_dag": (
        "        with tempfile.TemporaryDirectory() as folder:\n",
        '        import os\n        if folder := tempfile.mkdtemp(dir=os.environ["AIRFLOW_HOME"]):\n',
    ),
    # the pod's size is asked for on every executor
    "35_05_02_conditional_executor_config": ('if "KubernetesExecutor" not in configured_executors():', "if False:"),
    # the real executor's result differs from the mock's
    "35_05_03_testing_across_executors": (
        '"core", "executor"))\n        return total(ORDERS)\n',
        '"core", "executor"))\n        return total(ORDERS) + 1\n',
    ),
    # the receiver does not know what it was sent already
    "35_06_03_edge_tasks": ('self.kept[message["key"]]', "self.kept[self.messages]"),
    # what should have expired has not
    "35_03_04_result_backend": ("- timedelta(days=2)", "- timedelta(hours=2)"),
    # every task goes to the first process of a pool
    "35_03_03_worker_concurrency": ("busy_until[busy_until.index(min(busy_until))]", "busy_until[0]"),
    # what is urgent weighs least
    "35_03_05_task_priority_celery": (
        'task_id="urgent", weight_rule="absolute", priority_weight=100',
        'task_id="urgent", weight_rule="absolute", priority_weight=1',
    ),
    # tasks of the lab with several executors are left to the first one, or use another word for theirs
    "35_07_01_multi_executor_concepts": ('task_id=f"on_{executor}", executor=name', 'task_id=f"on_{executor}"'),
    "35_07_02_configure_multi_executor": ('_by_{kind}", executor=name', "_by_{kind}\", executor=names['class']"),
    "35_07_03_task_executor_selection": ('@task(executor=choose("quick"))', "@task"),
    "35_07_04_dag_executor_default": ('    default_args={"executor": CELERY},\n', ""),
    "35_07_05_multi_executor_use_cases": ("@task(executor=EDGE)", "@task"),
    # large tasks ask for no more than small ones
    "35_05_05_resource_specification": ('"large": {"slots": 2,', '"large": {"slots": 1,'),
    # a queue without workers counts as one whose workers are busy
    "35_08_01_debug_task_not_starting": ("    if not serving:", "    if not serving and there is None:"),
    # the process above the task lives on
    "35_08_03_debug_celery_workers": ("os.kill(os.getppid(), signal.SIGKILL)", "os.kill(os.getppid(), 0)"),
    # the scheduler's lines are read in another time zone
    "35_08_04_executor_log_analysis": ('queued = seconds(found["time"])', 'queued = seconds(found["time"]) - 3600'),
    # the reader is sent to the worker that has the file
    "35_08_05_common_pitfalls": (
        '@task(queue="heavy_compute")\n    def reads_a_file(',
        '@task(queue="io_bound")\n    def reads_a_file(',
    ),
    # a pool of any size has one process at work
    "35_09_01_executor_scaling": ("begins = min(busy_until)", "begins = busy_until[0]"),
    # the fastest plan is taken, whatever it costs
    "35_09_05_cost_optimization": (
        'min(in_time, key=lambda plan: plan["cost"])',
        'min(in_time, key=lambda plan: plan["took"])',
    ),
    # pods differ from what their tasks ask for
    "35_04_03_executor_config_pod": ("image=image, resources=resources, env=", "image=image, env="),
    "35_04_04_resource_requests_limits": ("limits=wanted[1]) if wanted", 'limits={"memory": "1Gi"}) if wanted'),
    "35_04_05_affinity_tolerations": ("spreading = placed(SPREAD, ", 'spreading = placed({"spread": "no"}, '),
    # two long tasks fill the pool again
    "35_09_02_task_slot_optimization": ('"shared_out": 3', '"shared_out": 2'),
    # tasks are left to the default executor
    "35_09_03_executor_latency": ('_{number}", executor=name)', '_{number}")'),
    # what is shared is a folder of each pod's own
    "35_04_07_volume_mounts": (
        '{"persistent_volume_claim": k8s.V1PersistentVolumeClaimVolumeSource(claim_name="task-data")}',
        '{"empty_dir": k8s.V1EmptyDirVolumeSource()}',
    ),
    # the image is there
    "35_04_09_debugging_failed_pods": ('{"image": MISSING, ', '{"image": IMAGE, '),
    # who should be refused may
    "35_08_02_debug_k8s_pod_failures": (
        "@task(executor_config=with_account())",
        '@task(executor_config=with_account("airflow-pod-reader"))',
    ),
}
"""By DAG: a passage of its file, and what stands there instead."""

SAME_EXECUTOR = {"35_10_04_disaster_recovery": (", executor=other_executor())", ")")}
"""Another one: the standby works where the primary does."""

IN_PODS = {
    # pods of tasks share what their node's own processes share
    "35_01_04_executor_parallelism": (
        "    @task\n    def work(",
        "    from kubernetes.client import models as k8s\n\n"
        '    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], host_ipc=True)\n\n'
        '    @task(executor_config={"pod_override": k8s.V1Pod(spec=spec)})\n    def work(',
    ),
    # what should be no valid pod is one
    "35_08_02_debug_k8s_pod_failures": ('limited("384Mi", least="640Mi")', 'limited("384Mi")'),
    # a pod that no node takes counts as one that is about to start
    "35_08_01_debug_task_not_starting": ('("PodScheduled", "False")', '("PodScheduled", "Unknown")'),
    # what is for a node with a GPU goes anywhere
    "35_10_02_mixed_workloads": ("    if gpu:\n", "    if gpu and memory:\n"),
}
"""And others, which change what pods of tasks are, or what is said of them."""


@contextmanager
def _edited(edits: Mapping[str, tuple[str, str]], lab: Lab) -> Iterator[None]:
    """DAGs with one passage replaced, in a copy of their section that takes the place of the lab's link to it."""
    from scenarios.changing import parsed

    airflow, folder = lab.airflow(), Path(str(lab.outputs["paths"]["dags"]))
    files = {dag_id: next(folder.glob(f"*/{dag_id}.py")) for dag_id in edits}
    originals = {dag_id: file.read_text() for dag_id, file in files.items()}
    with ExitStack() as undo:
        for dag_id, text in originals.items():
            undo.callback(parsed, airflow, dag_id, text)
        for link in {file.parent for file in files.values()}:
            undo.enter_context(_copy_instead(link))
        for dag_id, file in files.items():
            old, new = edits[dag_id]
            assert originals[dag_id].count(old) == 1, f"{dag_id} has changed: {old!r} is not in it once"
            file.write_text(originals[dag_id].replace(old, new))
            parsed(airflow, dag_id, file.read_text())
        yield


@contextmanager
def _copy_instead(link: Path) -> Iterator[None]:
    """A copy of the folder to which a link leads, in the place of the link."""
    target = link.readlink()
    aside = Path(tempfile.mkdtemp(dir=link.parents[1]))  # no DAG processor looks there
    try:
        shutil.copytree(target, aside / "copy", ignore=shutil.ignore_patterns("__pycache__"))
        link.unlink()
        (aside / "copy").rename(link)
        try:
            yield
        finally:
            link.rename(aside / "copy")
            link.symlink_to(target)
    finally:
        shutil.rmtree(aside)


@contextmanager
def _edited_in_pods(dag_ids: tuple[str, ...], lab: Lab, edits: Mapping[str, tuple[str, str]] = EDITS) -> Iterator[None]:
    """DAGs with one passage replaced in the ConfigMaps from which the pods of each namespace have their section."""
    from components.dag_folder import section_folders
    from scenarios.changing import parsed
    from scenarios.faulting_kubernetes import KubernetesServices
    from scenarios.pods import Namespace, slug

    airflow, namespace = lab.airflow(), Namespace(lab.outputs)
    services = KubernetesServices(namespace, lab.outputs["services"])
    sites = {each["name"]: each["namespace"] for each in lab.outputs["services"].get("edge-worker", ())}
    folders = section_folders(lab.outputs["sections"])
    files = {dag_id: next(file for folder in folders for file in folder.glob(f"{dag_id}.py")) for dag_id in dag_ids}

    def put(dag_id: str, text: str) -> None:
        section = files[dag_id].parent.name
        for space in (namespace, *map(namespace.beside, sites.values())):
            path = space.path("configmaps", f"airflow-dags-{slug(section)}")
            space.patch(path, {"data": {f"{dag_id}.py": text}})
        parsed(airflow, dag_id, text)
        for site in sites:  # each has files of its own, which its kubelet brings up to date in its own time

            def there(site: str = site) -> tuple[bool | None, str]:
                seen = services.run(site, ["cat", f"/lab/dags/{section}/{dag_id}.py"]).stdout
                return (True if seen == text else None), f"{len(seen)} bytes"

            until(there, what=f"{site} to see the changed {dag_id}", timeout=120, interval=2)

    with ExitStack() as undo:
        for dag_id, file in files.items():
            (old, new), original = edits[dag_id], file.read_text()
            assert original.count(old) == 1, f"{dag_id} has changed: {old!r} is not in it once"
            airflow.wait_for_dag(dag_id, file=file.name)  # the lab may have just come up
            undo.callback(put, dag_id, original)
            put(dag_id, original.replace(old, new))
        yield


@contextmanager
def _tasks_killed(service: str, above: str, lab: Lab, when: str = "") -> Iterator[None]:
    """SIGKILL to the task processes of a service as soon as they are seen.

    Args:
        above: what the title of a task's parent process says.
        when: another service; they are killed only while it stands still.
    """
    home = str(run_directory(lab.name))

    def hunt(over: threading.Event) -> None:
        while not over.wait(0.1):
            with suppress(psutil.Error):
                if when and any(each.status() != psutil.STATUS_STOPPED for each in processes.marked(home, when)):
                    continue
            for process in processes.marked(home, service):
                with suppress(psutil.Error):
                    parent = process.parent()
                    if parent and above in " ".join(parent.cmdline()):
                        process.kill()

    with _meanwhile(hunt):
        yield


def _edits(*dag_ids: str) -> Callable[[Lab], AbstractContextManager[object]]:
    return partial(_edited, {dag_id: EDITS[dag_id] for dag_id in dag_ids})


def _all(*changes: Callable[[Lab], AbstractContextManager[object]]) -> Callable[[Lab], AbstractContextManager[object]]:
    """Several changes at the same time."""

    @contextmanager
    def changed(lab: Lab) -> Iterator[None]:
        with ExitStack() as undo:
            for change in changes:
                undo.enter_context(change(lab))
            yield

    return changed


_IMPATIENT = {
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1",  # 5
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "1",  # 10
}
"""How a task's process is told to give up soon."""

_LOCAL = (
    Mutation(
        "a-task-of-the-portable-dag-names-a-queue",
        {"test_35_01_02": r"transform names the queue big"},
        _edits("35_01_02_portable_dag"),
    ),
    Mutation(
        "the-scheduler-does-not-run-as-recorded",
        {
            "test_35_01_03": r"the process says KubernetesExecutor",
            "test_35_01_05": r"dag_concurrency does nothing in Airflow 3",
            "test_35_02_02": r"[5-8] tasks ran at once by their times, but \[core\] parallelism is 4",
        },
        _environment(
            "scheduler",
            {
                "AIRFLOW__CORE__PARALLELISM": "8",
                "AIRFLOW__CORE__DAG_CONCURRENCY": "16",
                "AIRFLOW_IS_K8S_EXECUTOR_POD": "True",
            },
        ),
    ),
    Mutation(
        "the-dags-no-longer-show-it",
        {
            "test_35_01_01": r"executor did not wait for scheduler",
            "test_35_02_03": r"tasks of a run were queued or running at once",
            "test_35_05_01": r"the next task still found",
            "test_35_05_02": r"heavy has the executor_config .*pod_override",
            "test_35_05_03": r"the real executor returned 1237.7, the mock executor 1236.7",
            "test_35_05_05": r"large_1 got .*'pool slots': 1",
        },
        _edits(
            "35_01_01_executor_architecture",
            "35_02_03_max_active_tasks_per_dag",
            "35_05_01_any_executor_dag",
            "35_05_02_conditional_executor_config",
            "35_05_03_testing_across_executors",
            "35_05_05_resource_specification",
        ),
        long=True,
    ),
    Mutation(
        "long-tasks-ask-for-less-and-nothing-is-pinned",
        {
            "test_35_09_02": r"no short task ran beside the first long one",
            "test_35_09_03": r"Airflow recorded None for LocalExecutor_1",
        },
        _edits("35_09_02_task_slot_optimization", "35_09_03_executor_latency"),
        long=True,
    ),
    Mutation(
        "one-slot",
        {
            "test_35_01_04": r"only 1 ran at once",
            "test_35_02_01": r"not all four tasks ran at the same moment",
            "test_35_02_04": r"`call` needs a second slot|`listen` needs a second slot",
        },
        _options({"core.parallelism": "1"}),
        long=True,
    ),
    Mutation("a-variable-overrides-the-queues", {"test_35_05_04": r"the table says"}, _queue_map, long=True),
    Mutation(
        "task-processes-are-killed",
        {"test_35_02_01": r"ended as failed"},
        partial(_tasks_killed, "scheduler", "LocalExecutor"),
        long=True,
    ),
    Mutation(
        "a-dead-scheduler-counts-as-alive",
        {"test_scheduler_killed": r"waited 90 s for 8 tasks of probe_executions to be executed"},
        _environment("scheduler", {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600"}),
        long=True,
    ),
)

_CELERY = (
    Mutation(
        "a-worker-takes-from-another-queue-too",
        {"test_35_03_01": r"'heavy-1': \['default', 'heavy_compute'\]"},
        partial(_script, "heavy-1", "--queues heavy_compute ", "--queues heavy_compute,default "),
    ),
    Mutation(
        "workers-take-more-than-they-should",
        {
            "test_35_03_02": r"two transformations ran at once",
            "test_35_03_03": r"nothing waited in the broker while the worker was busy",
        },
        _all(
            partial(_script, "compute-1", "--concurrency 1", "--concurrency 2"),
            _environment("default-1", {"AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "4"}),
        ),
    ),
    Mutation(
        "the-celery-dags-no-longer-show-it",
        {
            "test_35_03_03": r"a pool needs as long as the slow task, however large",
            "test_35_03_04": r"'SUCCESS' == 'PENDING'",
            "test_35_03_05": r"'urgent': 1\b",
        },
        _edits("35_03_03_worker_concurrency", "35_03_04_result_backend", "35_03_05_task_priority_celery"),
    ),
    Mutation(
        "no-worker-holds-more-than-it-runs",
        {"test_what_a_slow_worker_holds": r"last state: \{'waiting': 4, 'held': 2, 'slow': 1, 'fast': 1\}"},
        _environment("heavy-1", {"AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1"}),
    ),
)

_PERFORMANCE = {
    "test_35_09_01": r"a pool of [24] takes [24] rounds, not",
    "test_35_09_05": r"4 on demand is taken, but one in time costs 12\.0",
}
"""What is to be said where the DAGs of 35.9 are edited."""

_SCALING = (
    Mutation(
        "pools-and-plans-are-worked-out-wrongly",
        _PERFORMANCE,
        _edits("35_09_01_executor_scaling", "35_09_05_cost_optimization"),
    ),
)

_DEBUGGING = (
    Mutation(
        "the-debugging-dags-no-longer-show-it",
        {
            "test_35_08_01": r"'nobody_takes_me': 'workers_busy'",
            "test_35_08_03": r"nothing says that \d+ died",
            "test_35_08_04": r"'queued': -3[56]\d\d\.",
            "test_35_08_05": r"not the error that was expected: .*'reads_a_file': ''",
        },
        _edits(
            "35_08_01_debug_task_not_starting",
            "35_08_03_debug_celery_workers",
            "35_08_04_executor_log_analysis",
            "35_08_05_common_pitfalls",
        ),
    ),
    Mutation(
        "the-scheduler-waits-long-for-heartbeats",
        {
            "test_worker_killed": r"waited 90 s for 3 tasks of probe_retries to be executed",
            "test_worker_paused": r"waited 90 s for both tasks to be given up",
        },
        _environment("scheduler", {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "600"}),
    ),
    Mutation(
        "a-worker-does-not-come-back",
        {"test_worker_killed": r"waited 90 s for the lab to recover .*: no answer over the broker from default-1"},
        # the process that takes its place runs, as supervisord sees it
        partial(_script, "default-1", r"^(?=exec )", "sed -i 's/^exec .*/exec sleep 600/' \"$0\"\n"),
    ),
    Mutation(
        "tasks-end-while-the-broker-stands-still",
        {"test_broker_paused": r"running tasks ended with the broker"},
        partial(_tasks_killed, "default-1", "airflow supervisor", when="broker"),
    ),
    Mutation(
        "every-task-has-a-retry",
        {"test_task_process_killed": r"fragile ended with .*'state': 'success'"},
        _options({"core.default_task_retries": "1"}),
    ),
    Mutation(
        "a-worker-logs-elsewhere",
        {"test_log_disk_full": r"waited 30 s for both tries to fail"},
        _environment("io-1", {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": "$AIRFLOW_HOME/elsewhere"}),
    ),
    Mutation(
        "a-worker-is-stopped-the-cold-way",
        {"test_worker_stopped": r"the worker was not stopped in order"},
        _environment("default-1", {"REMAP_SIGTERM": "SIGQUIT"}),
    ),
    Mutation(
        "a-dead-scheduler-counts-as-alive",
        {"test_scheduler_killed": r"the new scheduler to adopt all tasks; last state: adopted are \[\]"},
        _environment("scheduler", {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600"}),
    ),
    Mutation(
        "the-broker-has-no-persistence",
        {"test_broker_restarted": r"the broker lost messages"},
        partial(_script, "broker", r"^(exec redis-server \S+)$", r"\1 --appendonly no"),
    ),
    Mutation(
        "what-was-lost-is-not-sent-again",
        {"test_broker_restarted": r"only 0 of 6 were sent again"},
        _options({"scheduler.num_stuck_in_queued_retries": "0"}),
    ),
    Mutation(
        "tasks-give-up-at-once",
        {
            "test_database_paused": r"tasks gave up",
            "test_database_restarted": r"tasks gave up",
            "test_api_server_restarted": r"tasks gave up",
        },
        _environment("default-1", _IMPATIENT),
    ),
)

_MULTI = (
    Mutation(
        "a-worker-has-another-list",
        {"test_35_07_01": r"CeleryExecutor,LocalExecutor,edge:"},
        _environment("default-1", {"AIRFLOW__CORE__EXECUTOR": f"CeleryExecutor,LocalExecutor,edge:{EDGE}"}),
    ),
    Mutation(
        "tasks-choose-other-executors",
        {
            "test_35_07_01": r"Airflow recorded None for on_LocalExecutor",
            "test_35_07_02": r"EdgeExecutor_by_alias",
            "test_35_07_03": r"quick_1",
            "test_35_07_04": r"inherits",
            "test_35_07_05": r"sensor_1",
        },
        _edits(*(dag_id for dag_id in EDITS if dag_id.startswith("35_07"))),
    ),
    Mutation(
        "the-scheduler-does-not-say-what-it-ran",
        {"test_35_07_04": r"waited 15 s for a trace of each task; last state: none of .*opts_out"},
        _environment("scheduler", {"AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}),
    ),
    Mutation(
        "the-standby-is-no-other-executor",
        {"test_35_10_04": r"the standby was to run on None, and ran at scheduler"},
        partial(_edited, SAME_EXECUTOR),
    ),
)

_EDGE = (
    Mutation(
        "a-site-is-given-what-it-should-not-have",
        {
            "test_35_06_01": r"the site was given .*encryption key.*metadata database",
            "test_35_06_05": r"a process at a site was given .*AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        },
        _environment(
            "site-a",
            {
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://airflow@127.0.0.1/airflow",
                "AIRFLOW__CORE__FERNET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
            },
        ),
    ),
    Mutation(
        "a-site-reaches-the-database",
        {"test_35_06_05": r"the task was answered .*\d': ''"},
        partial(_script, "site-a", r"^exec \S+ -m components\.platforms\.process\.closed_ports [\d ]+-- ", "exec "),
    ),
    Mutation(
        "two-sites-serve-one-queue",
        {
            "test_35_06_01": r"but \['site-a', 'site-b'\] serve its queue",
            "test_35_06_02": r"site-a serves default, site_a, site_b",
            "test_35_06_04": r"the queue site_b is served by \[\('site-a', 2\), \('site-b', 1\)\]",
        },
        partial(_serves, "site-a", "site_b"),
    ),
    Mutation(
        "what-is-sent-twice-is-kept-twice",
        {"test_35_06_03": r"what was sent twice was not kept once"},
        _edits("35_06_03_edge_tasks"),
    ),
    Mutation(
        "a-site-keeps-its-logs",
        {"test_35_06_01": r"waited 15 s for the whole log to be pushed"},
        _environment("site-a", {"AIRFLOW__EDGE__PUSH_LOGS": "False"}),
    ),
    Mutation(
        "a-site-sends-nothing-again",
        {
            "test_edge_site_cut_off": r"waited 30 s for the tasks to end at the site; last state: 0 of 2 ended",
            "test_api_server_restarted": r"tasks gave up",
            "test_database_paused": r"tasks gave up|0 of 2 tasks went on",
            "test_database_restarted": r"tasks gave up",
        },
        _environment("site-a", _IMPATIENT),
    ),
    Mutation(
        "a-new-worker-leaves-the-old-tasks-alone",
        {"test_edge_site_killed": r"no old and no stray process after site-a killed"},
        partial(_script, "site-a", r"^if \[ -e .*$", ""),
    ),
)

_HA = (
    Mutation(
        "nobody-takes-over",
        {
            "test_one_scheduler_lost": r"waited 60 s for scheduler-[12] to adopt the tasks of scheduler-[12]",
            "test_one_triggerer_lost": r"waited 60 s for triggerer-[12] to take over what triggerer-[12] had",
            "test_one_dag_processor_lost": r"waited 60 s for the DAGs of late to be parsed",
            "test_35_10_04": r"waited 60 s for the new schedulers to adopt what was queued",
        },
        _all(
            *(
                _environment(f"scheduler-{n}", {"AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3600"})
                for n in (1, 2)
            ),
            *(
                _environment(f"triggerer-{n}", {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "3600"})
                for n in (1, 2)
            ),
            _environment("dag-processor-2", {"AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3600"}),
        ),
    ),
    Mutation(
        "a-zone-is-no-second-one",
        {
            "test_35_10_01": r"\['zone-a-1'\] serve the default queue",
            "test_one_worker_lost": r"waited 90 s for 3 tasks of probe_retries to be executed",
            # a busy machine gives up sooner
            "test_one_api_server_lost": r"waited 60 s for run .* of probe_zone_b|ended as .*'zone_b': 'failed'",
        },
        _all(partial(_script, "zone-b-1", "--queues default,", "--queues "), _leans_on_the_first_api_server),
    ),
    Mutation(
        "a-service-goes-past-the-pool",
        {"test_35_10_01": r"connected to the database itself: scheduler-2"},
        _past_the_pool,
    ),
    Mutation(
        "a-task-begins-anew-and-long-ones-together",
        {
            "test_35_10_02": r"two long tasks ran at once",
            "test_35_10_04": r"units by the try that did them: \[\(1, 2\), \(2, 2\)",
        },
        _edits("35_10_02_mixed_workloads", "35_10_04_disaster_recovery"),
    ),
)


@contextmanager
def _let_in(lab: Lab) -> Iterator[None]:
    """In each namespace of the lab, one more policy that lets everything in and out."""
    from scenarios.network import policy
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    names = {replica["namespace"] for group in lab.outputs["services"].values() for replica in group}
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    with ExitStack() as undo:
        for name in names:
            undo.enter_context(policy(namespace.beside(name), "everything", spec))
        yield


@contextmanager
def _anything_allowed(lab: Lab) -> Iterator[None]:
    """A namespace whose Pod Security refuses nothing."""
    from scenarios.pods import Namespace

    namespace, label = Namespace(lab.outputs), "pod-security.kubernetes.io/enforce"
    path = f"/api/v1/namespaces/{namespace.name}"
    before = namespace.api.request("GET", path)["metadata"]["labels"][label]
    try:
        namespace.patch(path, {"metadata": {"labels": {label: "privileged"}}})
        yield
    finally:
        namespace.patch(path, {"metadata": {"labels": {label: before}}})


@contextmanager
def _without_rights(lab: Lab) -> Iterator[None]:
    """A scheduler whose account may do nothing."""
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    where = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}/rolebindings/airflow-scheduler"
    try:
        namespace.api.request("DELETE", where)
        yield
    finally:
        lab.up()


@contextmanager
def _tasks_end_in_the_silence(lab: Lab) -> Iterator[None]:
    """The first two tasks that run at once are killed when the Kubernetes API stands still."""
    from airflow_client.client import TaskInstanceApi

    from scenarios.faulting_kubernetes import KubernetesServices, api_process
    from scenarios.pods import Namespace

    airflow, namespace = lab.airflow(), Namespace(lab.outputs)
    services, server = KubernetesServices(namespace, lab.outputs["services"]), api_process(namespace)
    api = TaskInstanceApi(airflow.client)

    def watch(over: threading.Event) -> None:
        tasks: list[psutil.Process] = []
        while not over.wait(0.2):
            if server.status() == psutil.STATUS_STOPPED:
                for task in tasks:
                    task.kill()
                return
            if len(tasks) < 2:  # then the Kubernetes API is asked no more
                running = airflow.call(api.get_task_instances, dag_id="~", dag_run_id="~", state=["running"])
                with suppress(psutil.NoSuchProcess):
                    tasks = [services.process(ti.hostname, ti.pid) for ti in running.task_instances if ti.pid]

    with _meanwhile(watch):
        yield


@contextmanager
def _without_probe(probe: str, service: str, lab: Lab) -> Iterator[None]:
    """A service whose container has no such probe."""
    from scenarios.faulting_kubernetes import KubernetesServices
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    services = KubernetesServices(namespace, lab.outputs["services"])
    path = f"/apis/apps/v1/namespaces/{namespace.name}/deployments/{services.workload(service)}"
    (whole,) = namespace.api.request("GET", path)["spec"]["template"]["spec"]["containers"]

    def contain(container: Mapping[str, object]) -> None:
        old = services.incarnation(service).id
        namespace.patch(path, {"spec": {"template": {"spec": {"containers": [container]}}}})

        def replaced() -> tuple[bool | None, str]:
            state, new = services.states()[service], services.incarnation(service).id
            return (True if state == "RUNNING" and new not in ("", old) else None), state

        until(replaced, what=f"{service} to have another pod", timeout=120)

    try:
        contain({key: value for key, value in whole.items() if key != probe})
        yield
    finally:
        contain(whole)


_KUBERNETES = (
    Mutation(
        "nobody-looks-whether-the-scheduler-moves",
        {"test_service_stands_still": r"waited 300 s for Kubernetes to start scheduler again"},
        partial(_without_probe, "livenessProbe", "scheduler"),
        long=True,
    ),
    Mutation(
        "pods-are-not-what-tasks-ask-for",
        {
            "test_35_04_03": r"the override's resources are lost",
            "test_35_04_04": r"the pod of (small|large|guaranteed) has",
            "test_35_04_05": r"the rule of spread_1 is about other pods",
            "test_35_04_07": r"ended as failed",
            "test_35_04_09": r"the pods of image_missing came to grief by \{''\}",
        },
        partial(_edited_in_pods, tuple(dag_id for dag_id in EDITS if dag_id.startswith("35_04"))),
    ),
    Mutation(
        "every-task-may-read-pods",
        {"test_35_08_02": r"may list pods: \{'[^,]*:airflow-pod-reader': True\}"},
        partial(_edited_in_pods, ("35_08_02_debug_k8s_pod_failures",)),
    ),
    Mutation(
        "pods-let-everybody-in",
        {"test_network_policies": r"a task reaches .*'metadata-database'.*, and needs"},
        _let_in,
    ),
    Mutation(
        "pods-that-wait-count-as-starting",
        {"test_35_08_01": r"'nobody_takes_me': 'starting'"},
        partial(_edited_in_pods, ("35_08_01_debug_task_not_starting",), edits=IN_PODS),
    ),
    Mutation(
        "the-executors-log-is-read-in-another-time-zone",
        {"test_35_08_04": r"'queued': -3[56]\d\d\."},
        partial(_edited_in_pods, ("35_08_04_executor_log_analysis",)),
    ),
    Mutation(
        "ended-pods-are-kept",
        {
            "test_35_04_01": r"the pod was kept",
            "test_35_04_06": r"the pod of \w+ lives",
            "test_35_04_08": r"kept are .*, not \[\('worker_fails', 1\)\]",
        },
        _options({"kubernetes_executor.delete_worker_pods": "False"}),
    ),
    Mutation(
        "another-template-is-the-default-one",
        {"test_35_04_02": r"the pod of by_default is not as default\.yaml says: of the labels it lacks"},
        _options({"kubernetes_executor.pod_template_file": "/lab/pod-templates/small.yaml"}),
    ),
    Mutation(
        "logs-stay-in-their-pods",
        {
            "test_35_04_09": r"the log store has 0 logs of raises",
            "test_log_store_lost": r"not every task of the run before had its log there",
        },
        _options({"logging.remote_logging": "False"}),
    ),
    Mutation(
        "pods-use-the-shared-memory-of-their-node",
        {"test_two_at_once_share_nothing": r"they share ipc"},
        _all(_anything_allowed, partial(_edited_in_pods, ("35_01_04_executor_parallelism",), edits=IN_PODS)),
    ),
    Mutation(
        "a-template-makes-a-pod-after-all",
        {
            "test_a_template_that_makes_no_pod": r"the API has refused \[\]",
            "test_a_pod_that_is_refused": r"a pod was made",
        },
        partial(_edited_in_pods, ("35_08_02_debug_k8s_pod_failures",), edits=IN_PODS),
    ),
    Mutation(
        "pods-are-made-one-by-one",
        {"test_pods_are_made_in_batches": r"6 pods came within \d+\.\d s, and within \d+\.\d s one by one"},
        _options({"kubernetes_executor.worker_pods_creation_batch_size": "1"}),
    ),
    Mutation(
        "a-pod-that-waits-is-not-made-anew",
        {"test_a_pod_that_nobody_takes": r"1 pods were made, and 0 times it was sent again"},
        _options({"scheduler.num_stuck_in_queued_retries": "0"}),
    ),
)

_CELERY_DOCKER = (
    Mutation(
        "the-line-does-not-come-back",
        {"test_worker_cut_off": r"to recover after default-1 cut off; last state: no ping reaches the workers"},
        partial(_cut_again, "default-1"),
    ),
)

_EDGE_DOCKER = (
    Mutation(
        "a-site-is-on-the-network-of-the-lab",
        {"test_35_06_05": r"site-a is on a network with .*metadata-database"},
        partial(_on_the_network, "site-a"),
    ),
)

_DOCKER = (
    Mutation(
        "a-second-port-is-published",
        {"test_published_ports": r"published are \['127\.0\.0\.1:\d+', '127\.0\.0\.1:\d+'\], where the lab gives"},
        _publishes,
    ),
)


@contextmanager
def _budgets(least: int, lab: Lab) -> Iterator[None]:
    """Budgets that leave another number than one."""
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    path = f"/apis/policy/v1/namespaces/{namespace.name}/poddisruptionbudgets"
    names = [each["metadata"]["name"] for each in namespace.api.items(path)]
    try:
        for name in names:
            namespace.patch(f"{path}/{name}", {"spec": {"minAvailable": least}})
        yield
    finally:
        for name in names:
            namespace.patch(f"{path}/{name}", {"spec": {"minAvailable": 1}})


@contextmanager
def _ready_at_once(role: str, lab: Lab) -> Iterator[None]:
    """Services of a role whose pods are ready as soon as they run."""
    with ExitStack() as undo:
        for each in lab.outputs["services"][role]:
            undo.enter_context(_without_probe("startupProbe", each["name"], lab))
        yield


_HA_IN_PODS = (
    Mutation(
        "schedulers-are-ready-at-once",
        {"test_node_drained": r"waited 20 s for the budget|scheduler-\d was (let go at once|ready before)"},
        partial(_ready_at_once, "scheduler"),
    ),
    Mutation(
        "budgets-leave-nothing",
        {
            "test_35_10_01": r"the budget of [a-z-]+ is ",
            "test_node_drained": r"waited 20 s for the budget to be used up",
        },
        partial(_budgets, 0),
    ),
    Mutation(
        "budgets-are-never-met",
        {"test_node_drained": r"waited 120 s for the budgets to let all pods of the node go"},
        partial(_budgets, 2),
    ),
    Mutation(
        "a-lost-zone-is-not-noticed",
        {"test_zone_stopped": r"waited 200 s for run .* of probe_again"},
        _options({"scheduler.task_instance_heartbeat_timeout": "3600"}),
    ),
    Mutation(
        "long-tasks-run-together",
        {"test_35_10_02": r"two long tasks ran at once"},
        partial(_edited_in_pods, ("35_10_02_mixed_workloads",)),
    ),
    Mutation(
        "what-cannot-be-sent-or-stored-at-once-is-given-up",
        {"test_pods_deleted_under_load": r"last state: \d+ have not|did not end just once"},
        _options({"celery.extra_celery_config": "{}", "celery.task_publish_max_retries": "3"}),
        long=True,
    ),
)


@contextmanager
def _workers_end_at_once(lab: Lab) -> Iterator[None]:
    """Workers that an autoscaler scales have one second to end what they run, as soon as there are such workers."""
    from labs.cluster import Refused
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    path = f"/apis/apps/v1/namespaces/{namespace.name}/deployments/airflow-compute"
    hasty = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}

    def watch(over: threading.Event) -> None:
        while not over.wait(0.5):
            with suppress(Refused):  # there is none yet
                namespace.patch(path, hasty)
                return

    with _meanwhile(watch):
        yield


@contextmanager
def _given_a_second(service: str, lab: Lab) -> Iterator[None]:
    """A worker that has one second to end what it runs."""
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    path = f"/apis/apps/v1/namespaces/{namespace.name}/deployments/airflow-{service}"
    spec = namespace.api.request("GET", path)["spec"]["template"]["spec"]
    try:
        namespace.patch(path, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}})
        yield
    finally:
        given = {"terminationGracePeriodSeconds": spec["terminationGracePeriodSeconds"]}
        namespace.patch(path, {"spec": {"template": {"spec": given}}})


@contextmanager
def _pods_go_with_their_scheduler(lab: Lab) -> Iterator[None]:
    """Task pods that are deleted as soon as the scheduler is another."""
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)

    def uids() -> set[str]:
        return {pod["metadata"]["uid"] for pod in namespace.pods(component="scheduler")}

    def watch(over: threading.Event) -> None:
        before = uids()
        while not over.wait(0.5):
            if not uids() <= before:
                for pod in namespace.pods(kubernetes_executor="True"):
                    namespace.delete("pods", pod["metadata"]["name"], grace=1)
                return

    with _meanwhile(watch):
        yield


@contextmanager
def _a_label_goes_again_and_again(lab: Lab) -> Iterator[None]:
    """A service account that loses a label whenever it has it."""
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    path = namespace.path("serviceaccounts", "airflow-scheduler")
    label = namespace.api.request("GET", path)["metadata"]["labels"]["tier"]

    def watch(over: threading.Event) -> None:
        while not over.wait(0.2):
            namespace.patch(path, {"metadata": {"labels": {"tier": None}}})

    try:
        with _meanwhile(watch):
            yield
    finally:
        namespace.patch(path, {"metadata": {"labels": {"tier": label}}})


@contextmanager
def _tasks_start_all_the_same(lab: Lab) -> Iterator[None]:
    """A pool that gets its slots back as soon as it has none."""
    from airflow_client.client import PoolApi, PoolPatchBody

    airflow = lab.airflow()
    api = PoolApi(airflow.client)

    def watch(over: threading.Event) -> None:
        while not over.wait(0.3):
            if airflow.call(api.get_pool, pool_name="default_pool").slots == 0:
                body = PoolPatchBody(slots=128)
                airflow.call(api.patch_pool, pool_name="default_pool", pool_patch_body=body, update_mask=["slots"])
                return

    with _meanwhile(watch):
        yield


@contextmanager
def _shut_again(lab: Lab) -> Iterator[None]:
    """A policy of the broker that, once changed and taken back, is changed again."""
    from scenarios.network import policies
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    path = policies(namespace.name, "airflow-redis")

    def now() -> object:
        return namespace.api.request("GET", path)["spec"]["ingress"]

    original = now()

    def watch(over: threading.Event) -> None:
        changed = original
        while not over.wait(0.3):
            if (seen := now()) != original:
                changed = seen
            elif changed != original:
                namespace.patch(path, {"spec": {"ingress": changed}})

    try:
        with _meanwhile(watch):
            yield
    finally:
        namespace.patch(path, {"spec": {"ingress": original}})


_CHANGED = Mutation(
    "a-label-is-taken-off-again-and-again",
    {"test_objects_changed": r"tier is gone", "test_lab_upgraded": r"tier is gone"},
    _a_label_goes_again_and_again,
)

_ROTATED = Mutation(
    "tasks-start-while-secrets-change",
    {"test_secrets_rotated": r"a task began before|a task still ran|ended as|waited \d+ s"},
    _tasks_start_all_the_same,
)


@contextmanager
def _scaled_by_hand(lab: Lab) -> Iterator[None]:
    """Workers of which somebody makes two while KEDA is gone."""
    from scenarios.pods import Namespace

    namespace = Namespace(lab.outputs)
    operator = "/apis/apps/v1/namespaces/keda/deployments/keda-operator"
    scale = f"/apis/apps/v1/namespaces/{namespace.name}/deployments/airflow-compute/scale"

    def watch(over: threading.Event) -> None:
        while not over.wait(0.5):
            if namespace.api.request("GET", operator)["spec"]["replicas"] == 0:
                namespace.patch(scale, {"spec": {"replicas": 2}})
                return

    with _meanwhile(watch):
        yield


_CELERY_IN_PODS = (
    Mutation(
        "workers-are-scaled-while-nobody-looks",
        {"test_autoscaler_blind": r"somebody has changed the workers"},
        _scaled_by_hand,
    ),
    _CHANGED,
    _ROTATED,
    Mutation(
        "a-worker-that-changes-is-not-given-its-time",
        {"test_lab_upgraded": r"went after \d+ s, with its task"},
        partial(_given_a_second, "compute-1"),
    ),
    Mutation(
        "celery-lets-everybody-in",
        {"test_network_policies": r"api-server reaches .*'broker'.*, and needs"},
        _let_in,
    ),
    Mutation(
        "the-broker-stays-shut",
        {"test_broker_shut_by_policy": r"to recover after broker shut to .*; last state: (compute-1 is|no)"},
        _shut_again,
    ),
    Mutation(
        "pools-and-plans-are-worked-out-wrongly",
        _PERFORMANCE,
        partial(_edited_in_pods, ("35_09_01_executor_scaling", "35_09_05_cost_optimization")),
    ),
    Mutation(
        "a-worker-is-not-given-its-time",
        {"test_a_worker_that_goes": r"went after \d+ s, with its task|waited 180 s for 2 workers to be told to go"},
        _workers_end_at_once,
    ),
)

_MULTI_IN_PODS = (
    Mutation(
        "gpu-work-goes-anywhere",
        {"test_35_09_03": r"the pod of gpu was on another node"},
        partial(_edited_in_pods, ("35_10_02_mixed_workloads",), edits=IN_PODS),
    ),
    Mutation(
        "tasks-choose-other-executors-than-pods",
        {
            "test_35_07_01": r"Airflow recorded None for on_CeleryExecutor",
            "test_35_07_02": r"EdgeExecutor_by_alias",
            "test_35_07_03": r"quick_1",
            "test_35_07_04": r"inherits",
            "test_35_07_05": r"sensor_1",
        },
        partial(_edited_in_pods, tuple(dag_id for dag_id in EDITS if dag_id.startswith("35_07"))),
    ),
)


@contextmanager
def _site_ends_at_once(site: str, lab: Lab) -> Iterator[None]:
    """A site whose pods have one second to end what they run."""
    from scenarios.faulting_kubernetes import KubernetesServices
    from scenarios.pods import Namespace
    from scenarios.sites import UP, Sites

    namespace = Namespace(lab.outputs)
    services = KubernetesServices(namespace, lab.outputs["services"])
    sites = Sites(lab.airflow(), services)
    (place,) = {each["namespace"] for each in lab.outputs["services"]["edge-worker"] if each["name"] == site}
    path = f"/apis/apps/v1/namespaces/{place}/statefulsets/airflow-{site}"
    given = namespace.api.request("GET", path)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    def put(grace: int) -> None:
        before, old = sites.all()[site], services.incarnation(site).id
        namespace.patch(path, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": grace}}}})

        def anew() -> tuple[bool | None, str]:
            seen, new = sites.all()[site], services.incarnation(site).id
            fresh = new not in ("", old) and seen.heartbeat > before.heartbeat and seen.state in UP
            return (fresh or None), str(seen)

        until(anew, what=f"{site} to be there anew", timeout=120, interval=1)

    try:
        put(1)
        yield
    finally:
        put(given)


_EDGE_IN_PODS = (
    Mutation(
        "a-site-goes-anywhere",
        {"test_35_06_05": r"a site gets further than to the API server: .*'metadata-database': 'reached'"},
        _let_in,
    ),
    Mutation(
        "a-site-has-no-time-to-end",
        # the others are left out, as one of them has `up` put the site's time back
        {"test_a_site_scaled_in_its_cluster": r"waited .* for site-b-1 to be still at work"},
        partial(_site_ends_at_once, "site-b"),
    ),
    Mutation(
        "a-site-serves-the-queue-of-the-machine",
        {"test_a_worker_of_a_machine_outside": r"the queue machine is served by \['host-worker', 'site-b'\]"},
        partial(_serves, "site-b", "machine"),
    ),
    Mutation(
        "what-is-sent-twice-is-kept-twice-in-a-pod",
        {"test_35_06_03": r"what was sent twice was not kept once"},
        partial(_edited_in_pods, ("35_06_03_edge_tasks",)),
    ),
)

_UPGRADED = (
    Mutation(
        "task-pods-go-with-their-scheduler",
        {"test_lab_upgraded": r"'failed' == 'success'|other pods were made"},
        _pods_go_with_their_scheduler,
    ),
)

_PODS_LOST = (
    Mutation(
        "a-lost-node-is-not-noticed",
        {"test_node_stopped": r"waited 300 s for run .* of 35_04_05"},
        _options({"scheduler.task_instance_heartbeat_timeout": "3600"}),
    ),
    Mutation(
        "every-task-in-a-pod-has-a-retry",
        {
            "test_task_pod_lost": r"the runs ended as success, success, success",
            "test_image_missing": r"4 pods were made for 1 tasks",
        },
        _options({"core.default_task_retries": "1", "core.default_task_retry_delay": "1"}),
    ),
    Mutation(
        "tasks-in-pods-give-up-at-once",
        {"test_database_pod_deleted": r"gave up: an outage of"},
        _options({"workers.execution_api_retries": "1", "workers.max_failed_heartbeats": "1"}),
    ),
    Mutation(
        "the-scheduler-may-make-no-pod",
        {"test_quota_exhausted": r"to recover after quota .*; last state: scheduler is RUNNING, NOT READY"},
        _without_rights,
    ),
    Mutation(
        "task-pods-go-before-they-are-adopted",
        {"test_scheduler_pod_deleted": r"pods ended with their scheduler|waited 90 s for the new scheduler to adopt"},
        _pods_go_with_their_scheduler,
    ),
    Mutation(
        "tasks-end-while-the-kubernetes-api-is-silent",
        {"test_kubernetes_api_silent": r"tasks did not go on"},
        _tasks_end_in_the_silence,
    ),
)

MUTATIONS: Mapping[str, tuple[Mutation, ...]] = {
    "local": _LOCAL,
    "celery": (*_CELERY, *_DEBUGGING, *_SCALING),
    "edge": _EDGE,
    "multi": _MULTI,
    "ha": _HA,
    "kubernetes": (*_KUBERNETES, *_UPGRADED, *_PODS_LOST),
    "docker": _DOCKER,
    "celery-docker": _CELERY_DOCKER,
    "celery-kubernetes": _CELERY_IN_PODS,
    "edge-docker": _EDGE_DOCKER,
    "edge-kubernetes": _EDGE_IN_PODS,
    "multi-kubernetes": _MULTI_IN_PODS,
    "ha-kubernetes": _HA_IN_PODS,
}
"""By lab, as `up` takes its name; `docker` has those of all labs in containers."""
