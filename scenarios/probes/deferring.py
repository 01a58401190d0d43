"""# Tasks that wait in the triggerer

Not part of the curriculum: a scenario deploys it into a running lab for as long as it needs it.

Each task leaves a file when it is executed, defers itself until a file `release` appears, and leaves another when it
is executed again after that.
"""

import json
import os
import time
from pathlib import Path

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import BaseOperator, Param, dag


class Wait(BaseOperator):
    """Waits for `release` without a worker."""

    def execute(self, context):
        self.leave(context, "deferred")
        release = Path(context["params"]["folder"], "release")
        self.defer(trigger=FileTrigger(filepath=str(release), poke_interval=0.5), method_name="resume")

    def resume(self, context, event=None):
        self.leave(context, "resumed")

    def leave(self, context, what):
        now, ti = time.time(), context["ti"]
        file = Path(context["params"]["folder"], f"{ti.task_id}-{what}-{time.time_ns()}.json")
        where = {"service": os.environ["AIRFLOW_LAB_SERVICE"], "pid": os.getpid(), "worker": os.getppid()}
        who = {"task": f"{ti.task_id} {what}", "try": ti.try_number, **where}
        file.with_suffix(".new").write_text(json.dumps({**who, "started": now, "ended": now}))
        file.with_suffix(".new").replace(file)


@dag(
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["probe"],
    params={"folder": Param("", type="string", description="where each execution leaves its file")},
    doc_md=__doc__,
)
def probe_deferring():
    for number in range(1, 5):
        Wait(task_id=f"wait_{number}", doc_md="Leaves a file, defers itself, and leaves another.")


probe_deferring()
