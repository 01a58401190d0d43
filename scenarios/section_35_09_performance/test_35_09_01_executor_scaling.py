"""A burst waits where workers are few; where they grow with it, it waits less, and nobody pays for them afterwards.

The curve is looked at from outside: the broker's list, Airflow's states, and the pods or processes there are. Celery's
contract: with `--autoscale` a pool has as many processes as its worker holds messages, between two bounds, and loses
them again 30 s after it grew. Kubernetes': a HorizontalPodAutoscaler keeps `ceil(sum of use / target)` pods, and takes
some away when that was less for a while; a pod that goes gets SIGTERM, and its grace. KEDA's: none, while its query
says 0; it makes the first one itself, and a HorizontalPodAutoscaler the others.
Sources: https://docs.celeryq.dev/en/stable/userguide/workers.html#autoscaling,
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ and https://keda.sh/docs/2.20/concepts/

Hint: the log of `watch` has the curve as a task sees it; `kubectl get hpa` what an autoscaler measures and wants.
"""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow_client.client import DAGApi

from labs.airflow import AirflowError
from labs.waiting import until
from scenarios.faulting import late_fails
from scenarios.judge import max_concurrent, sequential
from scenarios.scaling import paid_seconds, pods_of, rebounded, rows, stays

pytestmark = pytest.mark.needs(section="35.3", because="elsewhere no worker serves the queue compute alone")

TASKS, SECONDS = 8, 2

FIRST = 60
"""Seconds within which the first worker of none has begun a task, where its image is there."""

HOLD = 40
"""Seconds for which workers that were told to go work on: more than the 30 that Kubernetes gives where nobody says."""


@pytest.fixture(scope="module")
def fixed(burst):
    """A burst on one worker of one process."""
    return burst({"tasks": TASKS, "seconds": SECONDS})


@pytest.fixture(scope="module")
def grown(fixed, elastic_lab, elastic, burst):
    """A burst on workers that grow, after that on the fixed one."""
    return burst(elastic.burst, elastic.least, elastic.calm)


def test_on_one_process_a_burst_waits_in_the_broker(fixed, evidence):
    """The tasks follow each other by Airflow's times, and meanwhile all others are in the broker's list."""
    works, curve = fixed.run.all("work"), fixed.curve
    evidence("curve", rows(curve))
    evidence("waited in the broker at most", max(look.waiting for look in curve))
    assert len(works) == TASKS
    assert sequential(works), f"{max_concurrent(works)} tasks ran at once on one process"
    assert max(look.waiting for look in curve) >= TASKS - 2, "the queue never had the burst"
    assert {look.slots for look in curve} == {1}
    assert curve[-1].waiting == 0


def test_the_dag_saw_that_curve(fixed, evidence):
    """What a task asked the broker and the workers agrees with what was seen from outside."""
    told, report = fixed.run.xcom("watch"), fixed.run.xcom("report")
    inside, outside = max(look["waiting"] for look in told), max(look.waiting for look in fixed.curve)
    evidence("curve as the DAG saw it", told)
    evidence("most that waited", {"inside": inside, "outside": outside})
    assert abs(inside - outside) <= 3  # it looks every few seconds
    assert max(look["processes"] for look in told) == 1, "one process serves the queue"
    assert report["peak"] == max(look["waiting"] + look["running"] for look in told)
    assert {int(most): wanted for most, wanted in report["wanted"].items()} == {
        most: min(most, report["peak"]) for most in (1, 2, 4)
    }


def test_the_waiting_time_is_what_airflow_recorded(fixed, evidence):
    """Each task says how long it waited since all were ready: in the order of Airflow's starts, and as long."""
    works = sorted(fixed.run.all("work"), key=lambda ti: ti.started)
    ready = min(span["ready"] for span in fixed.run.xcoms("work"))
    recorded, told = [ti.started.timestamp() - ready for ti in works], fixed.run.xcom("report")["waits"]
    evidence("seconds waited", [{"recorded": a, "told": b} for a, b in zip(recorded, told, strict=True)])
    assert told == sorted(told)
    # between Airflow's start and the task's first line its file is read
    assert all(0 <= there - seen < 5 for seen, there in zip(recorded, told, strict=True))
    assert told[-1] >= (TASKS - 1) * SECONDS, "the last task did not wait for all others"


def test_the_right_size_is_worked_out(fixed, evidence):
    """A pool of n needs as many rounds as tasks fill it; a larger one is paid for more, and idles more."""
    spans = [span["ended"] - span["started"] for span in fixed.run.xcoms("work")]
    sizes = {int(size): seen for size, seen in fixed.run.xcom("report")["sizes"].items()}
    evidence("pools", [{"processes": size, **seen} for size, seen in sizes.items()])
    for size, seen in sizes.items():
        rounds = math.ceil(TASKS / size)
        assert rounds * min(spans) <= seen["took"] <= rounds * max(spans), (
            f"a pool of {size} takes {rounds} rounds, not {seen['took']:.1f} s"
        )
        assert (rounds - 1) * min(spans) <= seen["last_waits"] <= (rounds - 1) * max(spans)
        assert seen["paid"] == pytest.approx(size * seen["took"])
        assert seen["busy"] == pytest.approx(sum(spans) / seen["paid"])
    memory = fixed.run.xcom("report")["memory_mb"]
    assert 20 < memory < 1000, f"a process with its task took {memory} MB"


def test_there_are_more_workers_while_there_is_more_to_do(fixed, grown, elastic, evidence):
    """From the least to no more than the most; tasks ran side by side, and the last one waited less than on one."""
    works, told = grown.run.all("work"), grown.run.xcom("report")
    alone, slots = told["sizes"]["1"]["last_waits"], [look.slots for look in grown.curve]
    first = next((look.at for look in grown.curve if look.slots > elastic.least), None)
    evidence("scaled by", elastic.by)
    evidence("curve", rows(grown.curve))
    evidence("seconds", {"the last waited": told["waits"][-1], "it would have, on one process": alone})
    evidence("tasks by worker", told["at"])
    assert first, f"there were never more than {elastic.least}: {elastic.by} did nothing"
    evidence("seconds until there were more", first - grown.curve[0].at)
    assert max(slots) <= elastic.most
    assert elastic.least or told["waits"][0] <= FIRST, f"from none on the first task waited {told['waits'][0]:.0f} s"
    assert max_concurrent(works) > 1, "the tasks followed each other, as on one process"
    assert told["waits"][-1] < alone, f"the last task waited {told['waits'][-1]:.0f} s, {alone:.0f} s on one process"


def test_what_is_not_needed_is_not_paid_for(grown, elastic, evidence):
    """When nothing is left to do there are as few as before, so it costs less than having the most all the time."""
    curve = grown.curve
    spent, always = paid_seconds(curve), elastic.most * (curve[-1].at - curve[0].at)
    evidence("seconds until there were few again", grown.shrank)
    evidence("worker-seconds", {"paid": spent, "with the most all the time": always})
    evidence("of these at work", grown.run.xcom("report")["used"])
    assert (curve[-1].slots, curve[-1].waiting) == (elastic.least, 0)
    assert spent < always, f"{spent:.0f} worker-seconds were paid for, of {always:.0f}"


def test_a_worker_that_goes_ends_its_task(
    namespace, elastic, elastic_lab, grown, meter, start_probe, airflow, evidence
):
    """While each worker runs a task, two are taken away: they work on for longer than 30 s, and no task runs twice."""
    if not elastic.bounds:
        pytest.skip("needs an autoscaler of pods: bring the lab up --with keda")
    looks = meter()
    with rebounded(namespace, elastic) as bounds:
        bounds(elastic.most, elastic.most)
        looks.wait(elastic.most, 180)
        probe = start_probe("probe_compute", {"seconds": 240})
        probe.wait_for_executions(elastic.most, timeout=60)
        running = {ti.hostname for ti in airflow.task_instances(probe.run) if ti.state == "running"}
        bounds(1, 1)

        def told_to_go():
            going = {pod["metadata"]["name"] for pod in looks.pods() if "deletionTimestamp" in pod["metadata"]}
            return (going if len(going) == elastic.most - 1 else None), f"{len(going)} are told to go"

        with late_fails():
            going = until(told_to_go, what=f"{elastic.most - 1} workers to be told to go", timeout=180, interval=0.3)
        began = time.time()

        def held():
            there = going & {pod["metadata"]["name"] for pod in looks.pods()}
            assert there == going, f"{', '.join(going - there)} went after {time.time() - began:.0f} s, with its task"
            return (True if time.time() - began > HOLD else None), f"{len(there)} work on"

        until(held, what=f"{HOLD} s to pass", timeout=2 * HOLD, interval=1)
        left = [each.task for each in probe.unended()]
        probe.release()
        run = airflow.wait(probe.run, 120)
        after = looks.wait(1, 180)
    account = probe.account()
    evidence("workers that ran a task", sorted(running))
    evidence("told to go", sorted(going))
    evidence("tasks", account)
    evidence("seconds from the last task until only one was there", after)
    assert running >= going, "an idle worker was told to go: nothing is shown"
    assert len(left) == elastic.most, f"only {left} still worked"
    assert run.state == "success", airflow.explain(run)
    assert set(probe.outcome().values()) == {("success", 1, 1, 1)}, "a task was lost, or ran twice"


@pytest.mark.needs(platform="kubernetes", extras="metrics-server")
def test_there_are_more_api_servers_while_more_is_asked(lab, airflow, namespace, evidence):
    """Four who ask without a pause get a second one at the same address; no request fails, and one is left at last."""
    failed, answered, over = [], [], threading.Event()

    def ask():
        while not over.is_set():
            try:
                airflow.call(DAGApi(airflow.client).get_dags, patience=0, limit=100)
                answered.append(time.time())
            except AirflowError as error:
                failed.append(str(error))

    def wait_for(wanted):
        began = time.time()

        def number():
            pods = pods_of(namespace, "api-server")
            done = len(pods) == sum(map(stays, pods)) == wanted
            return (time.time() - began if done else None), f"{len(pods)} pods"

        with late_fails():
            return until(number, what=f"{wanted} API servers", timeout=300, interval=1)

    bounds = {"api-server": {"most": 2, "cpu": 300}}
    with lab.reconfigured({}, autoscaling=bounds):
        wait_for(1)  # one that starts computes, too
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            try:
                grew = wait_for(2)
                alone = len(answered)
                until(
                    lambda: (True if len(answered) > alone + 50 else None, f"{len(answered) - alone}"),
                    what="50 answers of two API servers",
                    timeout=60,
                )
            finally:
                over.set()
            for each in asking:
                each.result()
        shrank = wait_for(1)
    evidence("seconds", {"until there were two": grew, "until there was one again": shrank})
    evidence("requests", {"answered": len(answered), "failed": len(failed)})
    assert not failed, f"{len(failed)} requests failed: {failed[0]}"
