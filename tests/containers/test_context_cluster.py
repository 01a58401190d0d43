"""Labs in a cluster of the user's: a kind cluster of which they are given nothing but the context of its kubeconfig."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.clusters.base import DEFAULT
from components.clusters.kind import _KindProvider
from components.platforms.kubernetes.resources import _NodeImageProvider
from labs import images
from labs.cluster import Cluster
from labs.errors import LabError
from labs.paths import PROJECT_ROOT, lab_directory
from labs.results import Results
from labs.verify import report_directory
from labs.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("node_image_is_there")]

NAME, CLUSTER = "t-context", "airflow-lab-t-theirs"

CONTEXT = f"context:kind-{CLUSTER}"

KINDS = (
    ("v1", "Namespace"),
    ("v1", "PersistentVolume"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("apiregistration.k8s.io/v1", "APIService"),
)
"""Of a cluster as a whole."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a cluster whose nodes have the images of the lab `kubernetes`, and no others of the labs."""
    folder = tmp_path_factory.mktemp("theirs")
    provider, props = _KindProvider(), {"name": CLUSTER, "home": str(folder / "run"), "port": 0}
    made = provider.create(props).outs
    assert made
    try:
        for image in ("airflow", "postgres"):
            asked = {"image": image, "source": images.chosen()[0], "kubeconfig": made["kubeconfig"]}
            _NodeImageProvider().create({**asked, "nodes": made["nodes"]})
            until(lambda asked=asked: told(asked), what=f"the nodes to tell of {image}", timeout=120, interval=2)
        path = folder / "config"
        path.write_text(made["kubeconfig"])
        yield path
    finally:
        provider.delete(CLUSTER, props)


def told(asked: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether all nodes say that they have an image; the kubelet looks every 30 s."""
    try:
        _NodeImageProvider().create({**asked, "nodes": []})
    except LabError as error:
        return None, str(error)
    return True, "they do"


@pytest.fixture
def api(theirs: Path) -> Iterator[Cluster]:
    """The cluster, as its administrator sees it; afterwards nothing is left of the lab, there or here."""
    cluster = Cluster(theirs.read_text())
    before = traces(cluster)
    try:
        yield cluster
    finally:
        if lab_directory(NAME).exists():
            lab(theirs, "down", NAME)
    assert not lab_directory(NAME).exists()
    # the provisioner of the cluster takes volumes away after their claims
    until(
        lambda: (True if traces(cluster) == before else None, str(sorted(traces(cluster) ^ before))),
        what="the cluster to be as it was",
        timeout=90,
    )


def traces(cluster: Cluster) -> set[tuple[str, ...]]:
    """What a cluster has as a whole, and what is said of its nodes."""
    found = {(kind, each["metadata"]["name"]) for v, kind in KINDS for each in cluster.items(cluster.path(v, kind))}
    for node in cluster.items("/api/v1/nodes"):
        found |= {(node["metadata"]["name"], *pair) for pair in node["metadata"]["labels"].items()}
    return found


def lab(kubeconfig: Path, *arguments: str, status: int = 0) -> str:
    """Run the command line to its end; its standard output, or where it must fail the sentence that it ends with."""
    done = subprocess.run(
        [PROJECT_ROOT / "lab", *arguments],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.rpartition("lab: ")[2] if status else done.stdout


def up(kubeconfig: Path, target: str = "kubernetes", *arguments: str, status: int = 0) -> str:
    where = ("--platform", "kubernetes", "--cluster", CONTEXT, "--engine", "embedded", "--name", NAME)
    return lab(kubeconfig, "up", target, *where, *arguments, "--json", status=status)


def test_a_lab_runs_there_and_leaves_no_trace(theirs: Path, api: Cluster) -> None:
    outputs: Mapping[str, Any] = json.loads(up(theirs))
    assert outputs["cluster"]["kind"] == "context"
    asked = ("--cluster", CONTEXT, "--engine", "embedded", "--name", NAME, "--json")
    assert [
        step for step in json.loads(lab(theirs, "preview", "kubernetes", *asked)) if step["operation"] != "same"
    ] == []
    states = json.loads(lab(theirs, "status", NAME, "--json"))["services"]
    assert {state["state"] for state in states} == {"RUNNING"}

    # what would break the cluster is not applicable, and nothing else is but what proves something
    some = ("35_01_02", "35_04_01", "node_stopped", "api_silent", "scheduler_pod_deleted", "prometheus")
    lab(theirs, "verify", NAME, *(part for each in some for part in ("-k", each)))
    verdicts: dict[str, set[str]] = {}
    for result in Results.load(report_directory(NAME) / "results.json").results:
        verdicts.setdefault(next(each for each in some if each in result.scenario), set()).add(result.verdict)
    spared = {"node_stopped", "api_silent", "prometheus"}
    assert verdicts == {each: {"not applicable" if each in spared else "passed"} for each in some}


def test_without_metrics_server_it_is_told_before_anything_is_made(theirs: Path, api: Cluster) -> None:
    said = up(theirs, "kubernetes", "--with", "metrics-server", status=2)
    assert f"the cluster of the context kind-{CLUSTER} has no metrics-server that answers: install it there" in said


def test_an_image_that_its_nodes_lack_is_told(theirs: Path, api: Cluster) -> None:
    said = up(theirs, "celery", status=1)
    assert "lacks the image airflow-executor-labs/redis:" in said
    assert "build it with `lab images build` and load it into the cluster" in said


def test_without_a_default_storage_class_it_is_told_before_anything_is_made(theirs: Path, api: Cluster) -> None:
    with default_class(api, "false"):
        said = up(theirs, status=2)
    assert "has no default storage class" in said and "make standard the default one" in said


@contextmanager
def default_class(api: Cluster, value: str) -> Iterator[None]:
    """The only storage class, marked as the default one or not while the block runs."""
    (found,) = api.items("/apis/storage.k8s.io/v1/storageclasses")

    def marked(as_is: str) -> None:
        change = {"metadata": {"annotations": {DEFAULT: as_is}}}
        path = f"/apis/storage.k8s.io/v1/storageclasses/{found['metadata']['name']}"
        api.request("PATCH", path, change, kind="application/merge-patch+json")

    marked(value)
    try:
        yield
    finally:
        marked("true")


def test_a_user_without_rights_is_told_before_anything_is_made(theirs: Path, api: Cluster, tmp_path: Path) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    api.request("POST", accounts, {"metadata": {"name": "nobody"}})
    try:
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        token = api.request("POST", f"{accounts}/nobody/token", asked)["status"]["token"]
        values = yaml.safe_load(theirs.read_text())
        values["users"][0]["user"] = {"token": token}
        weak = tmp_path / "config"
        weak.write_text(yaml.safe_dump(values))
        assert "does not let this user create a namespace; ask for the right to" in up(weak, status=2)
    finally:
        api.request("DELETE", f"{accounts}/nobody")
