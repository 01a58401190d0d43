"""Where the time until a task's first line goes, executor by executor: from Airflow's records and the executing side.

Relations are judged, no speeds: this machine may be busy.

Hint: the log of `report` has the stages of each executor, with the longest one.
"""

import re
from itertools import pairwise
from statistics import mean, median

import pytest

from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.image_registry import lacking
from scenarios.metering import duration
from scenarios.pods import GPU, moment, spans

DAG = "35_09_03_executor_latency"
MIXED = "35_10_02_mixed_workloads"
"""Has a task whose pod goes to a node for GPU work, where there is nothing else of a lab."""

ROUNDS = 3
STAGES = ("handed over", "made ready", "reported", "DAG file")

TICK = 0.05
"""Seconds by which the kernel's time of a process may differ from a clock's."""

MADE_FOR_THE_TASK = {"LocalExecutor": False, "CeleryExecutor": False, "EdgeExecutor": True, "KubernetesExecutor": True}
"""Whether the process above a task's is a new one, by executor."""

PULLED = re.compile(r"Successfully pulled image .* in (?P<time>[\dhms.]+) \(")
"""What the kubelet says of an image that it had to fetch; of another one: `already present on machine`."""


@pytest.fixture(scope="module")
def ran(run_dag):
    """One run."""
    return run_dag(timeout=180)


@pytest.fixture(scope="module")
def measured(ran, words):
    """The measured tasks in order: executor, what Airflow recorded, and what the task's own process said."""
    names = [(executor, f"{executor}_{number}") for number in range(1, ROUNDS + 1) for executor in words]
    return [(executor, ran.one(name), ran.xcom(name)) for executor, name in names]


def parts(ti, told):
    """The stages from `scheduled` to the first line, in seconds, by Airflow's times and those of the processes."""
    queued = ti.queued.timestamp()
    ends = {
        "scheduled": ti.scheduled.timestamp(),
        "scheduler: queued": queued,
        "executor: a place has it": told["process"] if told["above"] < queued else told["above"],
        "place made ready": told["process"],
        "reported: running": ti.started.timestamp(),
        "DAG file: first line": told["first"],
    }
    return {name: end - start for (_, start), (name, end) in pairwise(ends.items())}


def start(ti, told):
    """Seconds from queued to the task's first line: what the executor answers for."""
    return told["first"] - ti.queued.timestamp()


def starts(measured):
    """The same of each executor, the first round first."""
    found = {}
    for executor, ti, told in measured:
        found.setdefault(executor, []).append(start(ti, told))
    return found


def test_each_task_ran_where_it_was_pinned(ran, measured, words, celery, evidence):
    """Each ran on the executor that it names, by Airflow's record, by its process, by traces of workers and pods."""
    rows = [{"task": ti.task_id, "executor": ti.executor, "ran on": told["executor"]} for _, ti, told in measured]
    evidence("tasks", rows)
    for executor, ti, told in measured:
        assert ti.executor == words[executor], f"Airflow recorded {ti.executor} for {ti.task_id}"
        assert told["executor"] == executor, f"{ti.task_id} ran on {told['executor']}"
        assert (ti.hostname, ti.pid) == (told["hostname"], told["pid"])
    traces = {}
    if "CeleryExecutor" in words:
        traces["CeleryExecutor"] = {taken.task_id for taken in celery.taken(ran.run)}
    if ran.history:
        traces["KubernetesExecutor"] = {life.task_id for life in ran.history.lives(ran.run)}
    evidence("taken by workers, or run by pods", {executor: sorted(tasks) for executor, tasks in traces.items()})
    for executor, tasks in traces.items():
        for other, ti, _ in measured:
            assert (ti.task_id in tasks) is (other == executor), f"{executor} has, or lacks, a trace of {ti.task_id}"


def test_the_stages_follow_each_other(ran, measured, evidence):
    """No stage ends before it begins, although each is read elsewhere; the task's account agrees with Airflow's."""
    found = [(executor, parts(ti, told)) for executor, ti, told in measured]
    evidence("seconds of each stage", [{"executor": executor, **row} for executor, row in found])
    for (_, ti, _), (_, row) in zip(measured, found, strict=True):
        assert all(seconds > -TICK for seconds in row.values()), f"the stages of {ti.task_id} are out of order: {row}"
    before = [ran.one("begin"), *(ti for _, ti, _ in measured)]
    for earlier, (_, ti, told) in zip(before, measured, strict=False):
        assert earlier.started.timestamp() <= told["asked"] <= earlier.ended.timestamp() + TICK
        assert earlier.ended <= ti.scheduled, f"{ti.task_id} was scheduled before {earlier.task_id} had ended"
        whole = told["first"] - told["asked"]
        assert sum(told["stages"].values()) == pytest.approx(whole, abs=0.001)
        waited = (ti.queued - earlier.ended).total_seconds()
        assert told["stages"]["handed over"] >= waited - TICK, f"{ti.task_id} had a place before it was queued"


def test_a_place_waits_for_tasks_or_is_made_for_one(measured, evidence):
    """The process above a task is older than its being queued on LocalExecutor and Celery, and new on the others."""
    rows = [
        {
            "executor": executor,
            "the place began, seconds after queued": told["above"] - ti.queued.timestamp(),
            "made ready in": told["stages"]["made ready"],
        }
        for executor, ti, told in measured
    ]
    evidence("places", rows)
    for executor, ti, told in measured:
        new = told["above"] > ti.queued.timestamp() - TICK
        assert new is MADE_FOR_THE_TASK[executor], f"the process above {ti.task_id} began at {told['above']}"
        assert told["warm"] is not new


def test_the_report_has_the_medians(ran, measured, words, evidence):
    """Its table is that of the tasks, and the log names the longest stage of each executor."""
    told = ran.xcom("report")
    rounds = {name: [each["stages"] for executor, _, each in measured if executor == name] for name in words}
    own = {name: {stage: median(each[stage] for each in rows) for stage in STAGES} for name, rows in rounds.items()}
    evidence("median seconds", [{"executor": name, **row} for name, row in told["medians"].items()])
    for name, row in own.items():
        assert told["medians"][name] == pytest.approx(row)
        assert row[told["longest"][name]] == max(row.values())
    lines = [line for line in ran.log("report").splitlines() if "longest: " in line]
    evidence("log", lines)
    named = [line.partition("longest: ")[2].partition(". ")[0] for line in lines]
    assert sorted(named) == sorted(told["longest"].values())


@pytest.mark.needs(executor="CeleryExecutor")
@pytest.mark.needs(executor="KubernetesExecutor")
def test_a_warm_worker_starts_a_task_sooner_than_a_pod(measured, evidence):
    """Side by side in one run: from queued to the first line, a worker that waits is quicker than a pod to be made."""
    seconds = {executor: each for executor, each in starts(measured).items() if executor != "EdgeExecutor"}
    evidence("seconds from queued to the first line, round by round", seconds)
    assert median(seconds["CeleryExecutor"]) < median(seconds["KubernetesExecutor"])


@pytest.fixture(scope="module")
def figures():
    """What takes long to measure, once for all checks."""
    return {}


def cold_start(figures, lab, airflow, faults, timeline, words, executor):
    """Seconds from the start of a worker to the first line of a task that had waited for it, and the task's try."""
    if "cold" in figures:
        return figures["cold"]
    serving = [worker["name"] for worker in lab.outputs["services"]["worker"] if "default" in worker["queues"]]
    if len(serving) > 1:
        pytest.skip("needs a default queue that one worker serves; where there are two, the other one is warm")
    airflow.wait_for_dag(DAG, file=f"{DAG}.py")

    def waiting():
        found = airflow.task_instances(run)
        own = [ti for ti in found if (ti.executor or words[executor]) == words["CeleryExecutor"]]
        queued = next((ti.task_id for ti in own if ti.state == "queued"), None)
        return queued, ", ".join(f"{ti.task_id} is {ti.state}" for ti in found)

    with faults.stopped(serving[0]) as fault:
        run = airflow.trigger(DAG)
        timeline(run)
        task_id = until(waiting, what="a task to wait for the worker", timeout=60)
    with late_fails():
        run = airflow.wait(run, timeout=180)
    assert run.state == "success", airflow.explain(run)
    (ti,) = [each for each in airflow.task_instances(run) if each.task_id == task_id]
    figures["cold"] = airflow.xcom(ti)["first"] - fault.since, ti.try_number
    return figures["cold"]


@pytest.mark.needs(executor="CeleryExecutor")
def test_a_worker_that_must_start_first_is_slower(
    figures, lab, airflow, faults, timeline, measured, words, executor, evidence
):
    """A task that finds no worker waits in the broker, then for the worker's start: longer than any with a warm one."""
    warm = starts(measured)["CeleryExecutor"]
    cold, tries = cold_start(figures, lab, airflow, faults, timeline, words, executor)
    evidence("seconds to the first line", {"from the worker's start": cold, "with a warm worker, from queued": warm})
    assert tries == 1
    assert cold > max(warm), "a worker that had to be started first was no slower"


def gpu_pod(run_dag, namespace):
    """A run of 35.10.2: seconds from queued to the first line of its task on a node for GPU work, that pod, and what
    the kubelet said of its image.
    """
    ran = run_dag({"seconds": 0}, dag_id=MIXED, timeout=300)
    (life,) = [life for life in ran.history.lives(ran.run) if life.task_id == "gpu"]
    return ran.xcom("gpu")["started"] - ran.one("gpu").queued.timestamp(), life, pulls(ran, namespace)["gpu"]


def bars(seconds, width=40):
    """A row for each of these, with a bar as long as it took."""
    longest = max(seconds.values())
    return [
        {"the task's place": place, "seconds": round(each, 2), "": "█" * max(1, round(width * each / longest))}
        for place, each in seconds.items()
    ]


@pytest.mark.needs(executor="CeleryExecutor")
@pytest.mark.needs(executor="KubernetesExecutor")
@pytest.mark.needs(executor="EdgeExecutor")
@pytest.mark.needs(cluster="kind", because="elsewhere nodes keep their images")
def test_start_latency_side_by_side(
    figures, lab, airflow, faults, timeline, measured, words, executor, run_dag, namespace, evidence
):
    """On one cluster, from queued to the first line: a worker that waits, one at a site, a pod; and what each may lack.

    Lacking are the worker itself, counted from its start, and the image of the pod, which its node then fetches from a
    registry of this machine: as quickly as that can be had.
    """
    (node,) = namespace.nodes_with(GPU, "true")
    reference = namespace.airflow_image()
    there, present, said = gpu_pod(run_dag, namespace)
    with lacking(node, reference) as fetched:
        late, absent, told = gpu_pod(run_dag, namespace)
    assert (present.node, absent.node) == (node, node), "the pod of gpu was on another node"
    cold, _ = cold_start(figures, lab, airflow, faults, timeline, words, executor)
    found = {name: median(each) for name, each in starts(measured).items()}
    (pulled,) = [match for match in map(PULLED.search, told) if match]
    rows = {
        "CeleryExecutor, a worker that waits": found["CeleryExecutor"],
        "EdgeExecutor, a site that waits": found["EdgeExecutor"],
        "KubernetesExecutor, a new pod": found["KubernetesExecutor"],
        "KubernetesExecutor, on the other node": there,
        "CeleryExecutor, a worker that must start": cold,
        "KubernetesExecutor, on the other node, without its image": late,
    }
    evidence("seconds to the first line", bars(rows))
    evidence("what the kubelet said of the image", {"there": said, "absent": told})
    evidence("fetched by the node", fetched)
    assert all("already present on machine" in each for each in said), f"the first pod waited for its image: {said}"
    assert len(fetched) > 2, f"the node fetched no layer: {fetched}"
    assert late > duration(pulled["time"]) > 0, "the task did not wait for its image"
    assert late > there, "a pod without its image started no later"
    assert min(rows, key=rows.get) in ("CeleryExecutor, a worker that waits", "EdgeExecutor, a site that waits")


@pytest.mark.needs(section="35.2")
def test_a_scheduler_that_sleeps_hands_over_later(lab, ran, run_dag, evidence):
    """With a longer `scheduler_idle_sleep_time` the same chain waits longer between a task's end and the next one."""
    with lab.reconfigured({"scheduler.scheduler_idle_sleep_time": "5"}):
        sleepy = run_dag(timeout=180)
    usual = lab.outputs["options"]["scheduler.scheduler_idle_sleep_time"]
    waited = {
        seconds: [
            (later.queued - earlier.ended).total_seconds()
            for earlier, later in pairwise(sorted(each.instances, key=lambda ti: ti.started))
        ]
        for seconds, each in ((usual, ran), ("5", sleepy))
    }
    evidence("scheduler_idle_sleep_time → seconds from a task's end until the next one is queued", waited)
    assert mean(waited["5"]) > mean(waited[usual])


@pytest.mark.needs(executor="KubernetesExecutor")
def test_where_the_time_of_a_pod_goes(ran, measured, evidence):
    """A pod of its own for each task, made after it was queued; its container begins before the task's process."""
    lives = {life.task_id: life for life in ran.history.lives(ran.run)}
    for executor, ti, told in measured:
        if executor != "KubernetesExecutor":
            continue
        life = lives[ti.task_id]
        created, (container, _) = moment(life.first["metadata"]["creationTimestamp"]), spans(life)["base"]
        evidence(
            f"{ti.task_id}: seconds after it was queued",
            {
                "pod created (whole seconds)": created - ti.queued.timestamp(),
                "container started (whole seconds)": container - ti.queued.timestamp(),
                "Python started": told["above"] - ti.queued.timestamp(),
                "task's process": told["process"] - ti.queued.timestamp(),
                "running": ti.started.timestamp() - ti.queued.timestamp(),
                "first line": start(ti, told),
            },
        )
        assert life.name == ti.hostname
        # times of Kubernetes are cut to whole seconds, and of a container it notes the start when its process has begun
        assert ti.queued.timestamp() - 1 <= created <= container <= told["above"] + 1
        assert told["stages"]["made ready"] > TICK, "Python and Airflow's imports took no time"


def pulls(ran, namespace):
    """Task → what the kubelet said of the image of its pod."""
    found = {life.task_id: namespace.events(life.uid) for life in ran.history.lives(ran.run)}
    return {
        task_id: [str(event.get("message")) for event in events if event.get("reason") == "Pulled"]
        for task_id, events in found.items()
    }


@pytest.mark.needs(executor="KubernetesExecutor", cluster="kind")
def test_no_pod_waits_for_its_image(ran, namespace, evidence):
    """The images of these labs are on the nodes before any pod is: the kubelet says so of each."""
    found = pulls(ran, namespace)
    evidence("what the kubelet said", found)
    assert found and all(found.values()), "of a pod nothing was said about its image"
    for task_id, messages in found.items():
        assert all("already present on machine" in each for each in messages), f"{task_id} waited: {messages}"


@pytest.mark.needs(executor="KubernetesExecutor")
def test_an_image_that_is_fetched_is_part_of_the_start(ran, measured, namespace, evidence):
    """Where a node had to fetch the image, the task waited at least that long."""
    fetched = {task: PULLED.search(" ".join(messages)) for task, messages in pulls(ran, namespace).items()}
    seconds = {task: duration(match["time"]) for task, match in fetched.items() if match}
    rows = [
        {"task": ti.task_id, "image fetched in": seconds[ti.task_id], "start": start(ti, told)}
        for _, ti, told in measured
        if ti.task_id in seconds
    ]
    if not rows:
        pytest.skip("needs a node that lacks the image and fetches it; here every node had it")
    evidence("seconds", rows)
    assert all(row["start"] > row["image fetched in"] for row in rows)
