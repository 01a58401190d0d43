"""A whole lab on a kind cluster, as a user drives it: up, a task in its pod, a second lab, down to nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from components.clusters.kind import Users, cluster_name, node_containers
from components.clusters.metrics_server import measured
from components.platforms.kubernetes.names import SERVICE, namespace_of, owner
from labs.airflow import Airflow
from labs.cluster import OWNER, Cluster
from labs.daemon import daemon
from labs.paths import PROJECT_ROOT, lab_directory
from labs.runs import Run
from labs.waiting import until

pytestmark = pytest.mark.usefixtures("node_image_is_there")

DAG = "35_01_02_portable_dag"

NAMES = ("t-pods-one", "t-pods-two")

ALONE = "t-pods-alone"


def lab(*arguments: str, status: int = 0) -> str:
    """Run the command line to its end; its standard output, or where it must fail what it says."""
    command = [PROJECT_ROOT / "lab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def up(name: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab("up", "kubernetes", "--engine", "embedded", "--name", name, "--json", *more))
    return found


def airflow_of(outputs: dict[str, Any]) -> Airflow:
    return Airflow(outputs["api_url"], outputs["admin_user"], outputs["admin_password"])


def run_once(outputs: dict[str, Any]) -> Run:
    airflow = airflow_of(outputs)
    airflow.wait_for_dag(DAG, file=f"{DAG}.py")
    run = airflow.wait(airflow.trigger(DAG, None), 180)
    assert run.state == "success", airflow.explain(run)
    pods = {ti.hostname for ti in airflow.task_instances(run) if ti.hostname}
    assert len(pods) > 1  # a pod for each task
    return run


def test_labs_on_a_cluster_run_tasks_in_pods_and_go_without_a_trace() -> None:
    try:
        outputs = up(NAMES[0])
        run_once(outputs)
        api = Cluster(Path(outputs["cluster"]["kubeconfig"]).read_text())
        _every_service_has_a_pod(api, outputs)

        asked = ("preview", "kubernetes", "--engine", "embedded", "--name", NAMES[0], "--json")
        assert [step for step in json.loads(lab(*asked)) if step["operation"] != "same"] == []
        states = json.loads(lab("status", NAMES[0], "--json"))["services"]
        assert {state["state"] for state in states} == {"RUNNING"}
        assert lab("logs", NAMES[0], "scheduler", "-n", "5").strip()

        foreign = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace_of(NAMES[1])}}
        api.request("POST", "/api/v1/namespaces", foreign)
        said = lab("up", "kubernetes", "--engine", "embedded", "--name", NAMES[1], status=1)
        assert f"there is a Namespace {namespace_of(NAMES[1])} that is not of this lab" in said
        assert api.found(f"/api/v1/namespaces/{namespace_of(NAMES[1])}")
        api.request("DELETE", f"/api/v1/namespaces/{namespace_of(NAMES[1])}")
        until(
            lambda: (None if api.found(f"/api/v1/namespaces/{namespace_of(NAMES[1])}") else True, "it is there"),
            what="the other namespace to be gone",
            timeout=60,
        )

        run_once(up(NAMES[1]))
        begun = time.monotonic()
        lab("down", NAMES[0])
        assert time.monotonic() - begun < 60
        assert not api.found(f"/api/v1/namespaces/{namespace_of(NAMES[0])}")
        assert not api.items("/api/v1/persistentvolumes", labelSelector=f"{OWNER}={owner(NAMES[0])}")
    finally:
        for name in NAMES:
            if lab_directory(name).exists():
                lab("down", name)
    cluster = cluster_name(NAMES[0], False)
    users = Users(cluster).known()  # other labs of this checkout may be up
    assert not users & {str(lab_directory(name) / "run") for name in NAMES}
    with daemon() as client:
        assert bool(node_containers(client, cluster)) == bool(users)
    assert not any(lab_directory(name).exists() for name in NAMES)


@pytest.mark.long  # its program is built from Go modules, once
def test_metrics_server_measures_the_pods_of_every_lab_on_the_cluster() -> None:
    extra = ("--with", "metrics-server")
    try:
        api = Cluster(Path(up(NAMES[0], *extra)["cluster"]["kubeconfig"]).read_text())
        asked = ("preview", "kubernetes", "--engine", "embedded", "--name", NAMES[0], *extra, "--json")
        assert [step for step in json.loads(lab(*asked)) if step["operation"] != "same"] == []
        assert measured(api)[0]
        lab("verify", NAMES[0], "-k", "metrics_server_says")
        up(NAMES[1], *extra)
        lab("down", NAMES[1])
        up(NAMES[0])
        assert measured(api)[0]  # who does not ask for it any more takes it from nobody
    finally:
        for name in NAMES:
            if lab_directory(name).exists():
                lab("down", name)


@pytest.mark.long
def test_a_lab_on_a_cluster_of_its_own_outlives_the_nodes_being_stopped() -> None:
    cluster = cluster_name(ALONE, True)
    try:
        before = run_once(up(ALONE, "--dedicated"))
        with daemon() as client:
            nodes = {each.id: each for each in node_containers(client, cluster)}
            assert len(nodes) == 3
        _stop(cluster)
        outputs = up(ALONE, "--dedicated")
        with daemon() as client:
            assert {each.id for each in node_containers(client, cluster, every=False)} == set(nodes)
        states = json.loads(lab("status", ALONE, "--json"))["services"]
        assert {state["state"] for state in states} == {"RUNNING"}
        assert airflow_of(outputs).run(before).state == "success"
        assert run_once(outputs).run_id != before.run_id
        _stop(cluster)  # from which it goes, too
    finally:
        if lab_directory(ALONE).exists():
            lab("down", ALONE)
    _no_trace(cluster)


@pytest.mark.long
def test_a_lab_goes_whose_cluster_somebody_has_removed() -> None:
    cluster = cluster_name(ALONE, True)
    try:
        up(ALONE, "--dedicated")
        with daemon() as client:
            for node in node_containers(client, cluster):
                node.remove(force=True, v=True)
    finally:
        lab("down", ALONE)
    _no_trace(cluster)


@pytest.mark.long
def test_gc_removes_what_is_over_and_what_nobody_owns_and_nothing_else() -> None:
    one, two = NAMES
    cluster = cluster_name(one, False)
    try:
        kept = up(one)
        up(two, "--ttl", "1s")
        api = Cluster(Path(kept["cluster"]["kubeconfig"]).read_text())
        assert f"lab {two}, whose time was over" in json.loads(lab("gc", "--json"))
        assert not lab_directory(two).exists() and not api.found(f"/api/v1/namespaces/{namespace_of(two)}")
        assert run_once(kept)

        kept = up(two)
        shutil.rmtree(lab_directory(one))
        removed = json.loads(lab("gc", "--json"))
        assert f"Namespace {namespace_of(one)} of the lab {one}, which is gone" in removed
        assert not api.found(f"/api/v1/namespaces/{namespace_of(one)}")
        assert run_once(kept)
        assert json.loads(lab("gc", "--json")) == []

        shutil.rmtree(lab_directory(two))
        assert f"the kind cluster {cluster}, of which no lab is left" in json.loads(lab("gc", "--json"))
    finally:
        for name in NAMES:
            if lab_directory(name).exists():
                lab("down", name)
    with daemon() as client:
        assert node_containers(client, cluster) == []


def _stop(cluster: str) -> None:
    with daemon() as client:
        for node in node_containers(client, cluster):
            node.stop()
        assert node_containers(client, cluster, every=False) == []


def _no_trace(cluster: str) -> None:
    with daemon() as client:
        assert node_containers(client, cluster) == []
    assert Users(cluster).known() == set()
    assert not lab_directory(ALONE).exists()


def _every_service_has_a_pod(api: Cluster, outputs: dict[str, Any]) -> None:
    path = f"/api/v1/namespaces/{outputs['cluster']['namespace']}/pods"
    running = {
        pod["metadata"]["labels"][SERVICE]
        for pod in api.items(path, labelSelector=SERVICE)
        if pod["status"]["phase"] == "Running"
    }
    assert running == {replica["name"] for group in outputs["services"].values() for replica in group}
