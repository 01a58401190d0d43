"""An edge worker is a process that something keeps alive: it is scaled, paused and ended from afar, site by site.

Hint: `airflow edge list-workers`, or Admin → Edge Worker, shows the state, queues and capacity of each site.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from components.platforms.kubernetes.names import SERVICE
from labs.paths import run_directory
from labs.processes import marked, number
from labs.runs import TaskInstance
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.host_worker import NAME, host_worker
from scenarios.judge import intervals, max_concurrent, sequential
from scenarios.observing import Look, Observation
from scenarios.sites import LOST, UP, Site, own_users

pytestmark = pytest.mark.needs(executor="EdgeExecutor", local="processes")

DAG = "35_06_04_edge_worker_deployment"
GONE = ("offline", "unknown")
"""States of a worker that has ended."""

START = 60.0
"""Seconds in which a worker that was started again must have registered; about 3 on two idle cores."""


def accelerators(host):
    """What the machine has of GPUs and TPUs."""
    kinds = {"nvidia[0-9]*": "GPU", "kfd": "GPU", "accel*": "TPU"}
    return sorted({kind for files, kind in kinds.items() if host.run(f"ls -d /dev/{files}").rc == 0})


def namespaces(process):
    """The kernel's namespaces in which a process runs: those of this machine, or of a container."""
    return {kind: Path(f"/proc/{process.pid}/ns/{kind}").readlink() for kind in ("pid", "net", "mnt")}


@dataclass(frozen=True)
class Operation:
    """One run, through which site-b was sent into maintenance, let out, and shut down while it ran a job.

    Attributes:
        run: at its end; its `looks` are from after the maintenance.
        before: user, process and parent process of each site's worker, before all this, as the sites know them.
        worker: pid of site-b's then, on this machine.
        known: the sites as Airflow knew them then.
        paused, back: site-b in maintenance, and after it.
        held: its task, seen when the maintenance ended; `other` is the same task of the other site.
        ordered: when site-b was told to shut down, epoch seconds.
        states: of site-b from then on until it was up again.
    """

    run: Observation
    before: Mapping[str, Mapping[str, int]]
    worker: int
    known: Mapping[str, Site]
    paused: Site
    back: Site
    held: TaskInstance
    other: TaskInstance
    ordered: float
    states: Sequence[str]


@pytest.fixture(scope="module")
def operated(airflow, sites, timeline):
    """A run with two jobs for site-b, which is operated from afar meanwhile."""

    def look(task_id):
        return next((ti for ti in airflow.task_instances(run) if ti.task_id == task_id), None)

    def other_site_done():
        ti = look("look_around_site_a")
        return (ti if ti.state == "success" else None), str(ti.state)

    def job_runs():
        jobs = [ti for ti in airflow.task_instances(run) if ti.task_id == "job"]
        return (True if any(ti.state == "running" for ti in jobs) else None), ", ".join(str(ti.state) for ti in jobs)

    def up_again(site):
        if site.state not in states[-1:]:
            states.append(site.state)
        return site.state in UP and not workers["site-b"].is_running()

    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    states, looks, known = [], [], sites.all()
    workers = {name: sites.worker(name) for name in ("site-a", "site-b")}
    before = {
        name: {"user": w.uids().real, "worker": number(w), "keeper": number(w.parent())} for name, w in workers.items()
    }
    sites.request_maintenance("site-b", "new disk")
    try:
        paused = sites.wait("site-b", lambda site: site.state == "maintenance mode", what="in maintenance")
        run = airflow.trigger(DAG, {"jobs": 2, "seconds": 4})
        with late_fails():
            other = until(other_site_done, what="site-a to work", timeout=60)
        sites.wait("site-b", lambda site: site.heartbeat > paused.heartbeat, what="heard of")
        held = look("look_around_site_b")
    finally:
        sites.exit_maintenance("site-b")
    back = sites.wait("site-b", lambda site: site.state in UP, what="back")

    with late_fails():
        until(job_runs, what="a job to run", timeout=60, interval=0.1)
    ordered = time.time()
    sites.request_shutdown("site-b")
    sites.wait("site-b", up_again, what="shut down and up again", timeout=START + LOST)
    ended = airflow.wait(run, watch=lambda instances: looks.append(Look(instances, {})))
    timeline(run)
    assert ended.state == "success", airflow.explain(run)
    observation = Observation(airflow, ended, airflow.task_instances(ended), looks)
    return Operation(observation, before, workers["site-b"].pid, known, paused, back, held, other, ordered, states)


@pytest.mark.needs(platform="process", because="elsewhere a container of its own keeps each worker alive")
def test_each_site_has_a_worker_that_is_kept_alive(operated, host, lab, evidence):
    """On a bare machine: the worker is a child of the lab's supervisord, as a user of its own."""
    machine, keeper = host("edge-worker"), int((run_directory(lab.name) / "supervisord.pid").read_text())
    told = {name: operated.run.xcom(f"look_around_{name.replace('-', '_')}") for name in operated.before}
    marked = any(machine.file(mark).exists for mark in ("/.dockerenv", "/run/.containerenv"))
    evidence("sites", [{"site": name, **row, "place": told[name]["place"]} for name, row in operated.before.items()])
    for name, row in operated.before.items():
        assert {key: told[name][key] for key in row} == row, f"{name} tells otherwise than its machine"
        assert row["keeper"] == keeper, "its parent is not the lab's supervisord"
        assert told[name]["site"] == name
        assert told[name]["accelerators"] == accelerators(machine)
        assert (told[name]["place"] == "container") == marked, f"{name} calls its place {told[name]['place']}"
    assert len({row["user"] for row in operated.before.values()}) == (2 if own_users(lab.platform) else 1)
    assert operated.run.xcom("compare") == {name: told[name]["place"] for name in told}


@pytest.mark.needs(platform=("docker", "kubernetes"), because="processes are in no container")
def test_workers_in_containers(operated, evidence):
    """Where the platform is one of containers, each site says that it is in one."""
    places = operated.run.xcom("compare")
    evidence("places", places)
    assert set(places.values()) <= {"container", "pod"}


@pytest.mark.needs(platform="kubernetes")
def test_each_site_is_a_pod_in_a_namespace_of_its_own(operated, lab, services, namespace, evidence):
    """In a cluster: it says that it is in a pod; a StatefulSet keeps that, apart from the lab and the other site."""
    rows = {}
    for site in operated.before:
        (pod,) = services.service_pod(site).parts
        space = namespace.beside(pod.namespace)
        (owner,) = space.api.request("GET", space.path("pods", pod.name))["metadata"]["ownerReferences"]
        rows[site] = {"pod": pod.name, "namespace": pod.namespace, "kept by": f"{owner['kind']} {owner['name']}"}
    evidence("sites", [{"site": site, **row} for site, row in rows.items()])
    assert set(operated.run.xcom("compare").values()) == {"pod"}
    assert {row["kept by"] for row in rows.values()} == {f"StatefulSet airflow-{site}" for site in rows}
    assert len({row["namespace"] for row in rows.values()} | {namespace.name}) == len(rows) + 1


def test_workers_beside_an_accelerator(operated, host, evidence):
    """A site with a GPU or TPU finds it, and is told to serve a queue of its own for it."""
    there = accelerators(host("edge-worker"))
    if not there:
        pytest.skip("needs a GPU or TPU; this machine has no /dev/nvidia*, /dev/kfd or /dev/accel*")
    evidence("accelerators", there)
    assert operated.run.xcom("look_around_site_a")["accelerators"] == there
    assert "should serve a queue of its own" in operated.run.log("compare")


def test_the_backlog_waits_for_a_slot(operated, evidence):
    """With the concurrency 1 of its only site, the jobs of a queue run one after the other; the rest stays queued."""
    jobs, told = operated.run.all("job"), operated.run.xcom("capacity")
    serving = [(site.name, site.concurrency) for site in operated.known.values() if "site_b" in site.queues]
    evidence("jobs", [{"job": ti.label, "site": ti.hostname, "started": ti.started, "ended": ti.ended} for ti in jobs])
    evidence("told", told)
    assert serving == [("site-b", 1)], f"the queue site_b is served by {serving}"
    assert {ti.hostname for ti in jobs} == {"site-b"}
    assert sequential(jobs), "two jobs ran at once at a site of concurrency 1"
    first, second = sorted(jobs, key=lambda ti: ti.started)
    assert second.queued < first.ended < second.started, "the second job did not wait as queued for the first"
    assert (told["at_once"], told["sites"]) == (1, ["site-b"])


def test_maintenance_pauses_a_site(operated, evidence):
    """In maintenance a site takes nothing: its task stays queued while another site works, and runs when it is back."""
    here = operated.run.one("look_around_site_b")
    evidence("in maintenance", {**vars(operated.paused), "its task": operated.held.state})
    evidence("back", {**vars(operated.back), "its task": here.state})
    assert "new disk" in operated.paused.comment and not operated.back.comment
    assert operated.held.state == "queued", f"a site in maintenance took a task: it is {operated.held.state}"
    assert (here.state, here.hostname) == ("success", "site-b")
    assert here.started > operated.other.ended, "it had started before the other site was done"


def test_a_worker_shut_down_from_afar_ends_its_job_first(operated, sites, services, evidence):
    """It ends what it runs, says that it is offline, and exits with 0; what keeps it alive starts it again."""
    old, new = operated.worker, sites.worker("site-b").pid
    jobs = operated.run.all("job")
    evidence("states of site-b", operated.states)
    evidence("worker", {"before": old, "after": new, "it ended": services.ended("site-b")})
    evidence("jobs", [{"job": ti.label, "state": ti.state, "try": ti.try_number, "seconds": ti.seconds} for ti in jobs])
    assert sum(start < operated.ordered < end for start, end in intervals(jobs)) == 1, "no job ran when the order came"
    assert operated.states[0] == "shutdown request" and "offline" in operated.states, operated.states
    assert all((ti.state, ti.try_number) == ("success", 1) for ti in jobs), "a job was not ended in order"
    assert services.ended("site-b") == 0, "the worker did not end in order"
    assert str(old) != str(new) == services.incarnation("site-b").id
    assert sites.all()["site-b"].queues == operated.known["site-b"].queues


def test_capacity_changes_while_it_runs(run_dag, sites, evidence):
    """Twice the concurrency, and a second site for the queue: more jobs at once, by the same two processes."""
    workers = {name: sites.worker(name).pid for name in ("site-a", "site-b")}
    try:
        sites.set_concurrency("site-b", 2)
        sites.add_queue("site-a", "site_b")
        added = sites.all()["site-a"]
        sites.wait("site-b", lambda site: site.concurrency == 2, what="of concurrency 2")
        # a worker learns its queues as the answer to a heartbeat
        sites.wait("site-a", lambda site: site.heartbeat > added.heartbeat, what="told its queues")
        run = run_dag({"jobs": 4, "seconds": 3})
    finally:
        sites.remove_queue("site-a", "site_b")
        sites.set_concurrency("site-b", 1)
        sites.wait("site-b", lambda site: site.concurrency == 1, what="of concurrency 1")
    jobs, told = run.all("job"), run.xcom("capacity")
    at = {name: [ti for ti in jobs if ti.hostname == name] for name in workers}
    evidence("jobs", [{"site": name, "jobs": len(own), "at once": max_concurrent(own)} for name, own in at.items()])
    evidence("told", told)
    assert max_concurrent(at["site-b"]) == 2, "site-b did not run two jobs at once"
    assert at["site-a"], "the second site took no job of the queue"
    assert max_concurrent(jobs) > 2, "both sites together ran no more jobs at once than site-b alone"
    assert told["sites"] == ["site-a", "site-b"]
    assert {name: sites.worker(name).pid for name in workers} == workers, "a worker was started again for it"


@pytest.mark.long
def test_a_site_more_takes_its_share(lab, run_dag, sites, evidence):
    """Scaled by hand: another worker for the queue, which takes jobs of the backlog, and is gone afterwards."""
    workers = {name: sites.worker(name).pid for name in ("site-a", "site-b")}
    try:
        with lab.reconfigured({}, sites={"site-c": {"queues": ["site_b"]}}):
            before = sites.all()["site-c"]
            run = run_dag({"jobs": 4, "seconds": 3})
        gone = sites.wait("site-c", lambda site: site.state in GONE, what="gone", timeout=2 * LOST)
    finally:
        if "site-c" in sites.all():
            sites.forget("site-c")  # or it would count as one that is lost
    jobs, told = run.all("job"), run.xcom("capacity")
    evidence("jobs", [{"site": ti.hostname, "started": ti.started, "ended": ti.ended} for ti in jobs])
    evidence("the site", [vars(before), vars(gone)])
    assert before.state in UP
    assert {ti.hostname for ti in jobs} == {"site-b", "site-c"} == set(told["sites"])
    assert max_concurrent(jobs) == 2, "two sites of one job at a time ran no two jobs at once"
    assert {name: sites.worker(name).pid for name in workers} == workers, "another worker was started again for it"


@pytest.mark.needs(platform="kubernetes", because="elsewhere a site is one process, which nothing multiplies")
def test_a_site_scaled_in_its_cluster_and_back(airflow, services, namespace, sites, start_probe, lab, evidence):
    """`kubectl scale` to 2: a second worker with a name of its own. Back to 1: it ends its task, then signs off.

    Hint: `kubectl -n NAMESPACE scale statefulset/airflow-site-b --replicas=2`; what is to go has the pod's grace.
    """
    more = "site-b-1"
    (space,) = {each["namespace"] for each in lab.outputs["services"]["edge-worker"] if each["name"] == "site-b"}

    def told_to_go():
        leaving = [pod["metadata"]["name"] for pod in pods() if "deletionTimestamp" in pod["metadata"]]
        return leaving or None, "no pod is on its way out"

    def pods():
        return namespace.beside(space).pods(**{SERVICE: "site-b"})

    try:
        with services.scaled("site-b", 2) as scale:
            joined = sites.wait(more, lambda site: site.state in UP, what="registered", timeout=START)
            there = {pod["metadata"]["name"]: pod["metadata"]["ownerReferences"][0]["name"] for pod in pods()}
            probe = start_probe("probe_site_b")
            begun = probe.wait_for_executions(2)
            scale(1)
            leaving = until(told_to_go, what="a pod to be told to go", timeout=30, interval=0.1)
            ending = sites.wait(more, lambda site: site.state not in UP, what="told to go", timeout=2 * LOST)
            later = ending.heartbeat + timedelta(seconds=LOST / 3)  # it has as long as its task takes
            sites.wait(more, lambda site: site.heartbeat > later, what="still at work", timeout=2 * LOST)
            held = [each.service for each in probe.unended()]
            probe.release()
            gone = sites.wait(more, lambda site: site.state in GONE, what="gone", timeout=2 * LOST)
            with late_fails():
                run = airflow.wait(probe.run, timeout=120)
    finally:
        if more in sites.all():
            sites.forget(more)  # or it would count as one that is lost
    account, done = probe.account(), probe.executions()
    evidence("pods, and what keeps them", there)
    evidence("the second worker", [vars(joined), vars(ending), vars(gone)])
    evidence("executions", [{"task": each.task, "worker": each.service, "ended": each.ended} for each in done])
    evidence("tasks", account)
    assert there == {f"airflow-site-b-{each}": "airflow-site-b" for each in (0, 1)}
    assert joined.queues == ("site_b",)
    assert {each.service for each in begun} == {"site-b", more}, "two workers did not run one task each"
    assert leaving == ["airflow-site-b-1"]
    assert sorted(held) == ["site-b", more], "the worker that was told to go had no task in hand"
    assert gone.state == "offline", f"the worker that was told to go did not sign off: it is {gone.state}"
    assert run.state == "success", f"the run ended as {run.state}\n{airflow.explain(run)}"
    for row in account:
        assert row["executions started"] == row["completed"] == row["tries"] == 1, f"{row} was not executed just once"
    assert {ti.hostname for ti in airflow.task_instances(run)} == {"site-b", more}, "Airflow knows other workers"
    assert [each.service for each in done].count(more) == 1, "a worker that was told to go took another task"


@pytest.mark.needs(platform="kubernetes", because="elsewhere the API server is on this machine, as every worker")
def test_a_worker_of_a_machine_outside(airflow, lab, sites, start_probe, requests_since, evidence):
    """A process of this machine, no container, joins over the published address: its queue's tasks run here.

    Hint: the line under `by hand` starts one; its secret is what a site's worker has as AIRFLOW__API_AUTH__JWT_SECRET.
    """
    secret = sites.try_as("site-a", ["sh", "-c", 'printf %s "$AIRFLOW__API_AUTH__JWT_SECRET"']).stdout
    requests, mark = requests_since(), str(run_directory(lab.name))
    try:
        with host_worker(lab.name, lab.outputs, secret, "machine") as worker:
            known = sites.all()
            serving = sorted(name for name, site in known.items() if "machine" in site.queues)
            assert serving == [NAME], f"the queue machine is served by {serving}"
            probe = start_probe("probe_machine")
            (first,) = probe.wait_for_executions(1)
            task = psutil.Process(first.pid)
            above = [each.pid for each in task.parents()]
            own = {"its pid": number(task), "its namespaces": namespaces(task)}
            family = [worker.process, *worker.process.children(recursive=True)]
            told = " ".join(" ".join([*each.cmdline(), *each.environ().values()]) for each in family)
            probe.release()
            with late_fails():
                run = airflow.wait(probe.run)
            by_hand, home = worker.by_hand(), worker.home
        gone = sites.wait(NAME, lambda site: site.state in GONE, what="gone", timeout=2 * LOST)
    finally:
        if NAME in sites.all():
            sites.forget(NAME)  # or it would count as one that is lost
    asked = [each for each in requests() if f"/edge_worker/v1/worker/{NAME}" in each.path]
    done = probe.executions()
    evidence("the worker", [vars(known[NAME]), vars(gone)])
    evidence("executions", [{"task": each.task, "at": each.service, "pid": each.pid} for each in done])
    evidence("processes above the first task", above)
    evidence("by hand", by_hand)
    assert worker.process.pid in above, "the task's process is none of the worker's"
    assert own == {"its pid": first.pid, "its namespaces": namespaces(psutil.Process())}, "it ran in a container"
    assert {ti.hostname for ti in airflow.task_instances(run)} == {each.service for each in done} == {NAME}
    assert [(each.try_number, bool(each.ended)) for each in done] == [(1, True)] * 2 and run.state == "success"
    assert asked, "the lab's API server was not asked by this worker"
    assert len(secret) > 31 and secret not in told, "an argument or a variable shows the secret"
    assert gone.state == "offline", f"it did not sign off: it is {gone.state}"
    assert not marked(mark, NAME) and not home.exists(), "something of it is left"
