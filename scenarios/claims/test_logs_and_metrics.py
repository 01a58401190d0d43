"""What seed 003 says of where task logs are, and where Prometheus finds metrics.

Hint: `[logging] log_filename_template`, and `[metrics]` for StatsD and OpenTelemetry.
"""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from scenarios.machine import listening


def test_the_path_of_a_task_log(lab, eight_tasks, evidence, claim):
    """Where the log of a task of a finished run really is."""
    ti, logs = eight_tasks.after[0], Path(lab.outputs["paths"]["logs"])
    since = ti.started.timestamp() - 1
    written = [str(file.relative_to(logs)) for file in logs.rglob("*.log") if file.stat().st_mtime >= since]
    own = [file for file in written if ti.dag_id in file and ti.task_id in file]
    evidence(f"logs of {ti.task_id} written since it started", own)
    assert len(own) == 1, f"{len(own)} logs of {ti.task_id} were written below {logs}"
    as_said = own[0].startswith(f"{ti.dag_id}/{ti.task_id}/")
    claim(
        "logs are in AIRFLOW_HOME/logs/dag_id/task_id/date/run.log",
        "seed 003",
        "holds" if as_said else "outdated",
        {"log": own[0]},
    )


@pytest.mark.needs(local="processes")
def test_where_prometheus_finds_metrics(lab, services, evidence, claim):
    """What listens in the scheduler and the API server, and what each answers to `/metrics`."""
    rows = []
    for role in ("api-server", "scheduler"):
        name = lab.outputs["services"][role][0]["name"]
        ports = listening(services.incarnation(name).parts)
        rows += [{"service": role, "port": port, **_metrics(services.host(name), port)} for port in ports]
        rows += [] if ports else [{"service": role, "port": "none", "status": "", "metrics": False}]
    evidence("GET /metrics", rows)
    exposed = [row["service"] for row in rows if row["metrics"]]
    claim(
        "Airflow (scheduler, workers) exposes /metrics",
        "seed 003",
        "holds" if "scheduler" in exposed else "wrong",
        {row["service"]: f"port {row['port']} {row['status']}".strip() for row in rows},
    )


def _metrics(host, port):
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            text, status = answer.read().decode(errors="replace"), answer.status
    except urllib.error.HTTPError as error:
        return {"status": error.code, "metrics": False}
    return {"status": status, "metrics": "\n# TYPE " in f"\n{text}"}
