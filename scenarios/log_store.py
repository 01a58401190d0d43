"""The log store as its own pod shows it: a file for each object."""

from __future__ import annotations

from typing import Any

from labs.runs import Run

BUCKETS = "/lab/log-store-data/objects"


def kept_logs(store: Any, run: Run, task_id: str = "*") -> dict[str, str]:
    """The logs of a run that the store has, of one task or of all: the text of each by its bucket and key.

    Args:
        store: testinfra host of the log store.
    """
    place = f"{BUCKETS}/*/dag_id={run.dag_id}/run_id={run.run_id}/task_id={task_id}/*.log"
    paths = store.check_output("find %s -type f -path %s", BUCKETS, place).splitlines()
    return {path.removeprefix(f"{BUCKETS}/"): store.check_output("cat %s", path) for path in sorted(paths)}
