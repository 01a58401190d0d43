"""What a lab must have for a check, and the words in which it is said that it has not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scenarios.conftest import unmet
from scenarios.observing import Observation


def lab(platform: str, cluster: str = "", executor: str = "CeleryExecutor") -> Any:
    outputs: dict[str, Any] = {"sections": ["35.1"], "services": {}, "extras": ["metrics-server"]}
    if cluster:
        outputs["cluster"] = {"kind": cluster}
    return SimpleNamespace(name="t", platform=platform, executors=(executor,), outputs=outputs)


PLACES = {"process": lab("process"), "kind": lab("kubernetes", "kind"), "context": lab("kubernetes", "context")}


@pytest.mark.parametrize(
    ("needs", "met"),
    [
        ({"platform": "kubernetes"}, {"kind", "context"}),
        ({"cluster": "kind"}, {"kind"}),
        ({"local": "processes"}, {"process", "kind"}),
        ({"local": "folders"}, {"process", "kind"}),
        ({"extras": "metrics-server"}, {"process", "kind", "context"}),
        ({"executor": "CeleryExecutor", "cluster": ("kind", "context")}, {"kind", "context"}),
    ],
)
def test_where_a_check_is_applicable(needs: dict[str, Any], met: set[str]) -> None:
    assert {place for place, there in PLACES.items() if not unmet(needs, there)} == met


def test_a_cluster_of_the_users_is_not_broken_and_says_so() -> None:
    assert unmet({"cluster": "kind"}, PLACES["context"]) == "needs cluster kind; lab t has context"
    assert unmet({"cluster": "kind"}, PLACES["process"]) == "needs cluster kind; lab t has none"
    assert unmet({"local": "processes"}, PLACES["context"]) == "needs local processes; lab t has none"


def test_a_log_that_airflow_does_not_have_is_not_applicable() -> None:
    unread = unmet({"local": "folders"}, PLACES["context"])
    seen = Observation(airflow=None, run=None, instances=[], looks=[], unread=unread)  # type: ignore[arg-type]
    with pytest.raises(pytest.skip.Exception, match="the log of a task needs local folders; lab t has none"):
        seen.log("load")
