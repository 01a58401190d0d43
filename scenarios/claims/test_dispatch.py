"""What seed 002 says of how the scheduler dispatches tasks: the executor's interface, and the flow of a task.

Hint: compare the scheduler's log, "Received executor event" and "TaskInstance Finished", with the task instances.
"""

from statistics import median

import pytest

from scenarios.seeds import CELERY_KUBERNETES, EDGE_BY_PATH

SOURCE = "seed 002"

LOADED = {
    "LocalExecutor,CeleryExecutor": (["LocalExecutor", "CeleryExecutor"], ["celery_executor", "local_executor"]),
    EDGE_BY_PATH: (["EdgeExecutor"], ["edge_executor"]),
}
"""Values of `[core] executor`, by name and by path: the classes that they name, and the modules of these."""


def test_what_the_loader_loads(installed, evidence, claim):
    """By name or by path, one or several: the classes that were named, and no module of another executor."""
    answers = {value: installed["executors"][value] for value in (*LOADED, CELERY_KUBERNETES)}
    evidence("[core] executor", [{"value": value, **answer} for value, answer in answers.items()])
    exactly = all(
        (answers[value].get("loads"), answers[value].get("imports")) == each for value, each in LOADED.items()
    )
    claim(
        "The ExecutorLoader handles dynamic loading and configuration of executors",
        SOURCE,
        "holds" if exactly and "error" in answers[CELERY_KUBERNETES] else "wrong",
        {value: answer.get("imports", answer.get("error")) for value, answer in answers.items()},
    )


def test_the_interface_between_scheduler_and_executor(installed, evidence, claim):
    """`heartbeat`, `sync` and the event buffer are there; tasks are handed over in another way."""
    contract = installed["contract"]
    evidence("interface", contract)
    methods, heartbeat = contract["methods"], contract["heartbeat calls"]
    handing_over = [name for name in ("execute_async", "queue_workload", "_process_workloads") if name in methods]
    claim(
        "Executor.execute_async(task_instance, command): submit task for async execution",
        SOURCE,
        "holds" if "execute_async" in methods else "outdated",
        {"has": handing_over, "queue_workload takes": contract["queue_workload takes"]},
    )
    claim(
        "Executor.sync(): check status of running tasks and update event_buffer",
        SOURCE,
        "holds" if "sync" in methods and contract["has event_buffer"] else "outdated",
        {"has": [name for name in ("sync", "get_event_buffer") if name in methods]},
    )
    called = {"sync", "trigger_tasks"} <= set(heartbeat) and "heartbeat" in contract["the scheduler's loop calls"]
    claim(
        "Executor.heartbeat(): called by scheduler on each loop iteration, calls sync() and trigger_tasks()",
        SOURCE,
        "holds" if called else "outdated",
        {"heartbeat calls, in this order": heartbeat},
    )


@pytest.mark.needs(executor="LocalExecutor")
def test_the_flow_of_a_task(eight_tasks, evidence, claim):
    """Queued, running, event, state: in which order, and who sets the state."""
    slots, after = eight_tasks.slots, {ti.task_id: ti for ti in eight_tasks.after}
    rows = [
        {
            "task": name,
            "queued → running (s)": round((ti.started - ti.queued).total_seconds(), 2),
            "running → ended (s)": round((ti.ended - ti.started).total_seconds(), 2),
            "ended → event received (s)": round(eight_tasks.events[name]["received"] - ti.ended.timestamp(), 2),
            "event carried": eight_tasks.events[name]["carried"],
            "task instance was already": eight_tasks.events[name]["task instance was"],
        }
        for name, ti in after.items()
    ]
    evidence("flow of each task", rows)

    ordered = all(ti.scheduled <= ti.queued <= ti.started <= ti.ended for ti in after.values())
    claim(
        "Scheduler marks TaskInstance as queued",
        SOURCE,
        "holds" if ordered and eight_tasks.queued == set(after) else "wrong",
        {
            "tasks": len(after),
            "queued by the scheduler, says its log": len(eight_tasks.queued),
            "seconds from queued to running": median(row["queued → running (s)"] for row in rows),
        },
    )

    running = [ti.label for ti in eight_tasks.during if ti.state == "running"]
    handed_over = len(running) + sum(ti.state == "queued" for ti in eight_tasks.during)
    beyond = sum(eight_tasks.full.waiting.values())
    claim(
        "Executor picks up queued tasks (bounded by parallelism)",
        SOURCE,
        "outdated" if beyond > 0 and handed_over > slots else "holds",
        {
            "[core] parallelism": slots,
            "running at once": len(running),
            "queued or running at once": handed_over,
            "bytes that the executor had picked up beyond its slots": beyond,
        },
    )
    launched = {execution.task for execution in eight_tasks.executions} == set(running)
    claim(
        "Executor launches task in execution environment",
        SOURCE,
        "holds" if launched else "wrong",
        {"tasks running": len(running), "processes that execute them": len(eight_tasks.executions)},
    )
    carried = sorted({row["event carried"] for row in rows})
    claim(
        "Executor monitors completion and reports back via event_buffer",
        SOURCE,
        "holds" if carried == ["success"] else "wrong",
        {
            "tasks": len(rows),
            "events": len(eight_tasks.events),
            "seconds from end to event": median(row["ended → event received (s)"] for row in rows),
        },
    )
    before = [row["task"] for row in rows if row["task instance was already"] == "success"]
    claim(
        "Scheduler updates TaskInstance state based on executor result",
        SOURCE,
        "outdated" if len(before) == len(rows) else "holds",
        {"events": len(rows), "task instances that had their state before": len(before)},
    )
