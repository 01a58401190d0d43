"""The first exercise of seed 003: 50 DAGs, about 500 tasks a day, one server, no broker and no cluster.

By default each of the 50 DAGs executes one task; with all ten, 500, it takes minutes and is marked `long`.

Hint: a task takes most of its time to start; compare the wait from queued to running with the number of slots.
"""

import psutil
import pytest

from components.platforms.process.inspection import memory
from labs import processes
from labs.paths import run_directory
from scenarios.judge import max_concurrent, span, states, waits

pytestmark = pytest.mark.needs(executor="LocalExecutor")

DAY = 24 * 3600


@pytest.mark.parametrize("tasks", [1, pytest.param(10, marks=pytest.mark.long)], ids=["50 tasks", "500 tasks"])
def test_fifty_dags_on_one_server(tasks, lab, airflow, probes, evidence, claim):
    """All end successfully, in parallel, on one machine; and how many a day that would be."""
    dags = sorted(dag_id for dag_id in probes if dag_id.startswith("probe_fifty_"))
    assert len(dags) == 50, f"{len(dags)} DAGs of the exercise are in the lab"
    idle = _memory(lab)
    runs = [airflow.trigger(dag_id, {"tasks": tasks}) for dag_id in dags]
    most = [idle]
    for run in runs:
        airflow.wait(run, timeout=60 + 3 * 50 * tasks, watch=lambda _: most.append(_memory(lab)))
    instances = [ti for run in runs for ti in airflow.task_instances(run)]

    executed = [ti for ti in instances if ti.pid is not None]
    seconds = span(executed)
    per_second = len(executed) / seconds
    numbers = {
        "DAGs": len(dags),
        "tasks executed": len(executed),
        "seconds": round(seconds, 1),
        "tasks per second": round(per_second, 2),
        "running at once, at most": max_concurrent(executed),
        "wait from queued to running, longest (s)": round(max(waits(executed)), 1),
        "memory of the lab, idle (MiB)": idle // 2**20,
        "memory of the lab, most (MiB)": max(most) // 2**20,
        "CPUs": psutil.cpu_count(),
    }
    evidence("load", numbers)
    assert len(executed) == 50 * tasks, f"{len(executed)} of {50 * tasks} tasks were executed: {states(instances)}"
    assert set(states(executed)) == {"success"}, f"not all tasks were successful: {states(executed)}"
    enough = per_second * DAY >= 500 and numbers["running at once, at most"] > 1
    claim(
        "50 DAGs and 500 tasks a day on a single server: LocalExecutor",
        "seed 003",
        "holds" if enough else "wrong",
        numbers,
    )


def _memory(lab):
    """Bytes of all processes of the lab, shared pages counted once."""
    return memory(processes.marked(str(run_directory(lab.name))))
