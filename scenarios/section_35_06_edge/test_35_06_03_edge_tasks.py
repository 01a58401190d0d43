"""Tasks that suit the edge keep the data at the site, return little, import little, and survive a bad network.

Hint: `collect` and `reduce` share a file, so the queue site_a must be served by one site only.
"""

import ast
import csv
import json
import math
import sys

import pytest

from components.dag_folder import DAGS

pytestmark = pytest.mark.needs(executor="EdgeExecutor", local="processes")

READINGS = 60_000


@pytest.fixture(scope="module")
def run(run_dag):
    """A run with more readings than the default."""
    return run_dag({"readings": READINGS})


def test_raw_data_stays_at_the_site(run, sites, lab, evidence):
    """The readings are a file in the site's home, of the site's user, and the summary of just these has come out."""
    worker, told = sites.worker("site-a"), run.xcom("reduce")["summary"]
    file = sites.path("site-a", run.xcom("collect")["file"])
    with file.open(newline="") as stream:
        rows = [(sensor, float(value)) for sensor, value in csv.reader(stream)]
    found = {}
    for sensor in told:
        values = [value for name, value in rows if name == sensor]
        found[sensor] = {"readings": len(values), "sum": math.fsum(values), "max": max(values)}
    evidence("the file", {"path": str(file), "bytes": file.stat().st_size, "readings": len(rows)})
    evidence("summary", [{"sensor": sensor, **told[sensor]} for sensor in told])
    assert len(rows) == READINGS
    assert file.parent == sites.home("site-a")
    assert file.stat().st_uid == worker.uids().real
    assert {ti.hostname for ti in run.all("collect", "reduce")} == {"site-a"}
    for sensor, own in found.items():
        assert told[sensor] == pytest.approx(own), f"the summary of {sensor} is not that of the file"


def test_little_leaves_the_site(run, sites, evidence):
    """All that Airflow stores of the run is a thousandth of the raw data, and no task needed memory for all of it."""
    file, cost = sites.path("site-a", run.xcom("collect")["file"]), run.xcom("reduce")["cost"]
    stored = {ti.task_id: len(json.dumps(run.xcom(ti.task_id))) for ti in run.instances}
    evidence("bytes stored by Airflow, task by task", stored)
    evidence("reduce", cost)
    assert cost["bytes_in"] == file.stat().st_size
    assert cost["bytes_out"] == len(json.dumps(run.xcom("reduce")["summary"]))
    assert sum(stored.values()) < file.stat().st_size / 500
    assert cost["memory_mb"] <= 8, "reading line by line took memory that grows with the file"
    assert f"{cost['bytes_in']} bytes in, {cost['bytes_out']} bytes out" in run.log("reduce")


def test_minimal_dependencies(run, evidence):
    """The DAG file imports nothing beyond Python itself and the Task SDK."""
    (file,) = DAGS.glob(f"*/{run.run.dag_id}.py")
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    beyond = sorted(name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names)
    evidence("imports", {"all": len(modules), "beyond Python": beyond})
    assert beyond == ["airflow.sdk"]
    assert run.xcom("dependencies") == {"imports": len(modules), "beyond_python": beyond}


def test_the_upload_survives_a_bad_network(run, airflow, sites, evidence):
    """Refused at its first try, answered at its second; what was sent twice is kept once."""
    first, second = airflow.tries(run.one("upload"))
    told = run.xcom("upload")
    logs = {ti.try_number: sites.log(ti, text) for ti, text in ((first, "not answered"), (second, "and kept"))}
    attempts = {number: [line[28:] for line in log.splitlines() if " attempt " in line] for number, log in logs.items()}
    jobs = {job.try_number: job for job in sites.jobs(run.run) if job.task_id == "upload"}
    evidence("attempts by try", attempts)
    evidence("jobs", [vars(job) for job in jobs.values()])
    assert [len(lines) for lines in attempts.values()] == [3, 2]
    assert all("refused" in line for line in attempts[1]), "the network was not down at the first try"
    assert "no answer" in attempts[2][0] and "answered" in attempts[2][1]
    assert (told["try"], told["messages"], told["kept"]) == (2, 2, 1), "what was sent twice was not kept once"
    assert (first.state, second.state) == ("failed", "success")
    assert {jobs[1].worker, jobs[2].worker, first.hostname, second.hostname} == {"site-a"}
    assert (second.started - first.ended).total_seconds() >= 1, "the second try did not wait"
