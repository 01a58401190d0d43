"""One DAG processor of two is lost, and a DAG is new meanwhile.

Airflow's contract: DAG processors keep what they parsed in the metadata database, and each of several parses on its
own; a DAG that is serialized there runs whether or not its file is parsed again.
Source: https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/dagfile-processing.html

Hint: the other processor's log says when it found the file; it looks every `[dag_processor] refresh_interval` seconds.
"""

import time
from pathlib import Path

import pytest

from scenarios.faulting import late_fails
from scenarios.probing import deployed

pytestmark = pytest.mark.needs(replicas="dag-processor")

TEXT = """
from airflow.sdk import dag, task

@dag(schedule=None, catchup=False, is_paused_upon_creation=False, tags=["late"])
def probe_late():
    @task
    def work():
        return 1

    work()

probe_late()
"""


def test_the_other_parses_what_is_new(lab, airflow, faults, replicas, tmp_path, evidence):
    """A DAG that appears while one processor is away is parsed by the other, and runs."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "late.py").write_text(TEXT)
    before = replicas.jobs()

    with faults.lost("dag-processor-1") as fault, late_fails():
        with deployed(airflow, Path(lab.outputs["paths"]["dags"]), tmp_path / "late", tag="late") as found:
            parsed = time.time() - fault.at
            run = airflow.wait(airflow.trigger("probe_late"))
        ended = time.time() - fault.at
    after = replicas.jobs()

    evidence("seconds after the loss", {"new DAG parsed": parsed, "its run ended and the DAG is forgotten": ended})
    assert found == {"probe_late"}
    assert run.state == "success"
    assert after["dag-processor-2"].id == before["dag-processor-2"].id
    assert after["dag-processor-1"].id != before["dag-processor-1"].id
