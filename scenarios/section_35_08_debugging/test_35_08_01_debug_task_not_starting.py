"""A task that does not start has a cause, and `diagnose` of 35.8.1 names it: each is provoked and told apart.

Hint: run the DAG's file itself, as its documentation says: it prints what `diagnose` finds.
"""

import json
from contextlib import ExitStack, nullcontext
from datetime import datetime, timedelta, timezone

import pytest
from airflow_client.client import DAGApi, DAGPatchBody, DagRunApi, PoolApi, TriggerDAGRunPostBody

from components.dag_folder import DAGS
from labs.airflow import AirflowError
from labs.runs import Run
from labs.service_logs import service_logs
from labs.waiting import WaitTimeout, until
from scenarios.changing import pool_slots
from scenarios.observing import Look, Observation
from scenarios.pods import ZONE, Namespace, cause, moment, refusals

pytestmark = pytest.mark.needs(default_executor=("CeleryExecutor", "KubernetesExecutor"), section="35.8")

on_workers = pytest.mark.needs(default_executor="CeleryExecutor")

in_pods = pytest.mark.needs(default_executor="KubernetesExecutor")

of_the_scheduler = pytest.mark.needs(
    default_executor="CeleryExecutor", because="the scheduler holds it back, whatever the executor: shown with workers"
)

DAG = "35_08_01_debug_task_not_starting"
QUEUE, POOL, NODE = "gpu", "35_08_01_missing", ("disk", "35-08-01")
CAUSES = {"in_no_pool": "pool_missing", "behind": "upstream"}
STATES = {"nobody_takes_me": "queued", "in_no_pool": "scheduled", "behind": None}
LAST_LOOK = "review_scheduler_log"
RETRIES = "kubernetes_executor.task_publish_max_retries"
TIMEOUT = "scheduler.task_queued_timeout"


@pytest.fixture(scope="module")
def causes(executor):
    """Task → the cause that is to be found; the first is held by the executor."""
    return {"nobody_takes_me": "queue" if executor == "CeleryExecutor" else "no_node", **CAUSES}


@pytest.fixture(scope="module")
def stuck(request, lab, airflow, executor, timeline, logs_for_tasks):
    """A run of the DAG, and how many messages waited in the queue that nobody serves at each look.

    Where tasks have pods, a node is given the label that one of them waits for, once the run has been looked at.
    """
    looks, depths, done = [], [], ExitStack()
    workers = executor == "CeleryExecutor"
    celery, namespace = (request.getfixturevalue("celery"), None) if workers else (None, Namespace(lab.outputs))

    def watch(instances):
        looks.append(Look(instances, {}))
        if celery:
            depths.append(celery.waiting(QUEUE)[QUEUE])
        elif not depths and any((ti.task_id, ti.state) == (LAST_LOOK, "success") for ti in instances):
            depths.append(0)
            node = min(namespace.nodes_with(ZONE, "a") or namespace.nodes())
            done.enter_context(namespace.labelled(node, *NODE))

    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    with done, namespace.watched() if namespace else nullcontext() as history:
        run = airflow.trigger(DAG, {"scheduler_log": str(logs_for_tasks / "scheduler.log")})
        timeline(run)
        run = airflow.wait(run, 240, watch=watch)
        if history:
            history.wait_quiet(run)
            for pod in namespace.pods_of(run):
                namespace.delete("pods", pod["metadata"]["name"], grace=1)
    return Observation(airflow, run, airflow.task_instances(run), looks, history), depths


def test_each_task_waits_in_other_hands(stuck, evidence):
    """While `diagnose_run` ran, the three were where the table says; nobody else ran them."""
    run, _ = stuck
    during = [look for look in run.looks if look.count("running", "diagnose_run")]
    assert during, "diagnose_run was never seen running"
    found = {ti.task_id: (ti.state, ti.hostname) for ti in during[-1].instances if ti.task_id in STATES}
    evidence("while they waited", [{"task": task, "state": state} for task, (state, _) in found.items()])
    assert found == {task: (state, "") for task, state in STATES.items()}


def test_the_causes_are_right(stuck, causes, evidence):
    """Of each task: who holds it, and why; a pool, a predecessor, and what the executor waits for."""
    run, _ = stuck
    told = {row["task"]: row for row in run.xcom("diagnose_run")}
    evidence("told", list(told.values()))
    assert {task: row["cause"] for task, row in told.items()} == causes


@on_workers
def test_nobody_serves_the_queue(stuck, celery, evidence):
    """As the broker and the workers' own queues show it from outside: one message waits, and nobody takes it."""
    run, depths = stuck
    fact = next(row["fact"] for row in run.xcom("diagnose_run") if row["task"] == "nobody_takes_me")
    evidence("messages in the queue", {"most": max(depths), "in the end": depths[-1]})
    served = {queue for queues in celery.queues().values() for queue in queues}
    assert QUEUE not in served, f"somebody serves {QUEUE}"
    assert max(depths) == 1
    assert all(queue in fact for queue in served), "it does not say which queues are served"


@in_pods
def test_no_node_takes_the_pod(stuck, namespace, evidence):
    """As Kubernetes shows it: the pod waited as unschedulable, the fact has its words; then it ran on its node."""
    run, _ = stuck
    fact = next(row["fact"] for row in run.xcom("diagnose_run") if row["task"] == "nobody_takes_me")
    lives = [life for life in run.history.lives(run.run) if life.task_id == "nobody_takes_me"]
    evidence("pods", [life.row() for life in lives])
    evidence("events", [event.get("message") for event in namespace.events(lives[0].uid)])
    assert lives[0].name in fact and "node affinity/selector" in fact
    assert any(event.get("reason") == "FailedScheduling" for event in namespace.events(lives[0].uid))
    assert lives[-1].node in (namespace.nodes_with(ZONE, "a") or namespace.nodes())


def test_the_scheduler_said_so_too(stuck, lab, evidence):
    """Its log names the missing pool, and queued the task that nobody takes; it says nothing of the third."""
    run, _ = stuck
    said = run.xcom("review_scheduler_log")
    evidence("told", said)
    log = service_logs(lab.outputs)["scheduler"].read()
    assert said["refused"], "the refusal was not found"
    assert said["refused"] in log
    assert said["queued"] == ["nobody_takes_me"]


def test_the_cures_work(stuck, causes, executor, evidence):
    """After the treatment, and not before, the three run; afterwards it is taken back, and the run still failed."""
    run, depths = stuck
    begun = dict.fromkeys(causes, run.one("treat").started)
    if executor == "KubernetesExecutor":  # the node has its label since then
        begun |= dict.fromkeys(("nobody_takes_me", "behind"), run.one(LAST_LOOK).ended)
    rows = [{"task": ti.task_id, "state": ti.state, "started": ti.started} for ti in run.all(*causes)]
    evidence("treatment begun", begun)
    evidence("tasks", rows)
    assert all(row["state"] == "success" and row["started"] > begun[row["task"]] for row in rows)
    assert depths[-1] == 0
    assert QUEUE not in {queue for each in run.xcom("tidy_up").values() for queue in each["queues"]}
    with pytest.raises(AirflowError, match="404"):
        run.airflow.call(PoolApi(run.airflow.client).get_pool, pool_name=POOL)
    assert run.run.state == "failed"
    assert [ti.task_id for ti in run.instances if ti.state == "failed"] == ["verdict"]


@pytest.fixture(scope="module")
def told(request, airflow, executor, services):
    """`told(run, cause, *tasks)`: wait until the helper, called from a shell, gives this cause for a task; its row."""

    def python(*arguments):
        if executor == "CeleryExecutor":
            return request.getfixturevalue("celery").python(*arguments)
        ended = services.run("api-server", ["python", *arguments])
        assert ended.returncode == 0, f"python ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-3:]}"
        return ended.stdout

    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    (file,) = DAGS.glob(f"*/{DAG}.py")

    def told(run, cause, *tasks):
        def probe():
            printed = python("-c", file.read_text(), run.dag_id, run.run_id, *tasks)
            rows = json.loads(printed[printed.index("[") :])
            found = [row for row in rows if row["cause"] == cause]
            return (
                found[0] if found else None
            ), f"it says {[(row['task'], row['cause'], row['fact']) for row in rows]}"

        try:
            return until(probe, what=f"the helper to say {cause!r} of {run.dag_id}", timeout=45, interval=0.5)
        except WaitTimeout as error:
            raise AssertionError(str(error)) from error

    return told


@pytest.mark.parametrize(
    ("dag_id", "cause", "state", "fact"),
    [
        pytest.param("probe_unserved", "queue", "queued", "its queue is nobody", marks=on_workers),
        ("probe_too_large", "pool_too_small", "scheduled", "it needs 1000"),
        ("probe_pool_missing", "pool_missing", "scheduled", "there is no pool probe_no_such_pool"),
        ("probe_narrow", "max_active_tasks", "scheduled", "1 of 1 are queued or running"),
        pytest.param("probe_compute", "workers_busy", "queued", "1 of 1 slots of compute-1@", marks=on_workers),
    ],
)
def test_causes_in_a_task_or_its_dag(dag_id, cause, state, fact, start_probe, told, evidence):
    """A queue, a pool, its size, the DAG's limit, busy workers: each named, with the fact that shows it."""
    row = told(start_probe(dag_id).run, cause)
    evidence("told", row)
    assert row["state"] == state
    assert fact in row["fact"]


@of_the_scheduler
@pytest.mark.parametrize(
    ("dag_id", "cause", "state"),
    [
        ("probe_serial", "max_active_runs", None),
        ("probe_single", "task_concurrency", "scheduled"),
    ],
)
def test_causes_in_another_run(dag_id, cause, state, start_probe, told, evidence):
    """The run before holds it back: as the only active one, or by the task's own limit."""
    start_probe(dag_id).wait_for_executions(1)
    second = start_probe(dag_id)
    row = told(second.run, cause)
    evidence("told", row)
    assert row["state"] == state
    assert second.executions() == []


@of_the_scheduler
def test_the_past(airflow, probes, exchange, told, evidence):
    """With `depends_on_past` a task waits for its own success in the run before; only runs with a date have a past."""

    def run(date, folder):
        body = TriggerDAGRunPostBody(logical_date=date, conf={"folder": str(folder)})
        made = airflow.call(
            DagRunApi(airflow.client).trigger_dag_run, dag_id="probe_past", trigger_dag_run_post_body=body
        )
        return Run("probe_past", made.dag_run_id, "queued")

    today = datetime.now(timezone.utc)
    assert airflow.wait(run(today - timedelta(days=1), exchange / "missing")).state == "failed"
    row = told(run(today, exchange), "past")
    evidence("told", row)
    assert row["state"] is None
    assert not list(exchange.iterdir())


@of_the_scheduler
def test_a_paused_dag(start_probe, airflow, told, evidence):
    """A run that waits behind another waits for nothing else, until the DAG is paused."""
    start_probe("probe_serial").wait_for_executions(1)
    second, api = start_probe("probe_serial"), DAGApi(airflow.client)

    def pause(paused):
        body = DAGPatchBody(is_paused=paused)
        airflow.call(api.patch_dag, dag_id="probe_serial", dag_patch_body=body, update_mask=["is_paused"])

    pause(True)
    try:
        row = told(second.run, "paused")
    finally:
        pause(False)
    evidence("told", row)
    assert row["fact"] == "probe_serial is paused, the run is queued"


def test_a_full_pool(start_probe, airflow, told, evidence):
    """With one slot, taken by the first task, the others are scheduled and stay so."""
    with pool_slots(airflow, "default_pool", 1):
        probe = start_probe("probe_executions")
        probe.wait_for_executions(1)
        row = told(probe.run, "pool_full")
        evidence("told", row)
        assert row["state"] == "scheduled"
        assert row["fact"] == "0 of 1 slots of default_pool are open, it needs 1"
        assert len(probe.executions()) == 1


@of_the_scheduler
def test_parallelism(lab, start_probe, told, evidence):
    """With one slot in the scheduler, workers are idle, pools are open, and still nothing more starts."""
    with lab.reconfigured({"core.parallelism": "1"}):
        probe = start_probe("probe_executions")
        probe.wait_for_executions(1)
        row = told(probe.run, "parallelism")
        evidence("told", row)
        assert row["state"] == "scheduled"
        assert row["fact"] == "1 tasks are queued or running in all DAGs together"
        assert len(probe.executions()) == 1
        probe.release()
        probe.airflow.wait(probe.run)


@of_the_scheduler
def test_no_scheduler(faults, start_probe, airflow, told, evidence):
    """The helper needs no scheduler, and knows that there is none by its heartbeat."""
    with faults.stopped("scheduler"):
        probe = start_probe("probe_serial")
        row = told(probe.run, "scheduler")
        evidence("told", row)
        assert row["state"] is None
    probe.wait_for_executions(1, timeout=60)


@on_workers
def test_no_broker(faults, start_probe, told, evidence):
    """A queued task whose broker is away is told from one whose workers are busy."""
    probe = start_probe("probe_compute")
    probe.wait_for_executions(1)
    row = told(probe.run, "workers_busy")
    with faults.stopped("broker"):
        away = told(probe.run, "broker", row["task"])
        evidence("told", [row, away])
    probe.release()
    assert probe.airflow.wait(probe.run).state == "success"


@of_the_scheduler
def test_a_retry(faults, start_probe, airflow, told, evidence):
    """A task whose process was killed waits for its next try."""
    probe = start_probe("probe_patient")
    probe.wait_for_executions(1)
    with faults.task_process_killed(*airflow.task_instances(probe.run)):
        row = told(probe.run, "retry")
    evidence("told", row)
    assert row["state"] == "up_for_retry"


@in_pods
def test_no_room_in_the_quota(lab, faults, start_probe, told, service_log, evidence):
    """A pod that the namespace's quota refuses again and again is none; with room, its task runs at its first try."""
    with lab.reconfigured({RETRIES: "-1"}):
        said = service_log("scheduler")
        with faults.quota({"requests.memory": "1Mi"}) as raise_to:
            probe = start_probe("probe_serial")
            row = told(probe.run, "no_pod")
            refused = [each for each in refusals(said()) if each.kind == "quota"]
            raise_to({"requests.memory": "64Gi"})
            probe.wait_for_executions(1, timeout=90)
            probe.release()
            run = probe.airflow.wait(probe.run)
    evidence("told", row)
    evidence("refused", [vars(each) for each in refused[:3]])
    assert row["state"] == "queued"
    assert refused, "the scheduler's log has no word of a quota"
    assert run.state == "success" and [each.try_number for each in probe.executions()] == [1]


@in_pods
def test_a_pod_that_nobody_takes_is_given_up(lab, airflow, namespace, start_probe, service_log, evidence):
    """After `[scheduler] task_queued_timeout` its task is sent again, in a new pod, and after the third time failed.

    Each pod was deleted without having run, and the task has used up no try.
    """
    with lab.reconfigured({TIMEOUT: "15", f"{TIMEOUT}_check_interval": "3"}), namespace.watched() as history:
        said = service_log("scheduler")
        probe = start_probe("probe_no_node")
        run = airflow.wait(probe.run, 180)
        history.wait_quiet(run)
        again = said().count("Task stuck in queued; will try to requeue")  # the next scheduler has a log of its own
    lives, (ti,) = history.lives(run), airflow.task_instances(run)
    why = [cause(life, namespace.events(life.uid)) for life in lives]
    lasted = [life.sightings[-1].at - moment(life.first["metadata"]["creationTimestamp"]) for life in lives]
    evidence("pods", [{**life.row(), "seconds": each} for life, each in zip(lives, lasted, strict=True)])
    evidence("causes", [vars(each) for each in why])
    evidence("sent again by the scheduler", again)
    assert (len(lives), again) == (3, 2), f"{len(lives)} pods were made, and {again} times it was sent again"
    assert {each.kind for each in why} == {"unschedulable"}
    assert all(life.phases() == ["Pending"] and life.gone for life in lives), "a pod ran, or is there still"
    assert all(10 < each < 45 for each in lasted), f"the pods were given up after {lasted} s"
    assert (run.state, ti.state, ti.try_number) == ("failed", "failed", 1)
