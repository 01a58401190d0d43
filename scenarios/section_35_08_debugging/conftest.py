"""What several verifiers of the section need: the logs of services where tasks find them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.lab import Lab
from labs.service_logs import service_logs
from scenarios.probing import exchange_folder
from scenarios.shipping import shipped


@pytest.fixture(scope="module")
def logs_for_tasks(lab: Lab) -> Iterator[Path]:
    """The folder with the logs of scheduler and workers, as tasks reach it: the lab's own, or one to which those of
    containers are shipped.
    """
    if lab.platform == "process":
        yield Path("../service-logs")  # seen from AIRFLOW_HOME
        return
    if not lab.outputs["paths"]["dags"]:
        pytest.skip("needs folders that this machine and the tasks both see; a cluster of the user's has none")
    services = lab.outputs["services"]
    wanted = {each["name"] for role in ("scheduler", "worker") for each in services.get(role, ())}
    with exchange_folder(lab.outputs) as folder:
        place = folder / "logs"
        place.mkdir()
        place.chmod(0o755)
        with shipped({name: log for name, log in service_logs(lab.outputs).items() if name in wanted}, place):
            yield place
