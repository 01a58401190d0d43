"""What a user can get wrong, or find wrong: one sentence, an exit code, nothing made and nothing lost."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from labs import processes
from labs.daemon import daemon
from labs.paths import PROJECT_ROOT, cache_root, engine_directory, lab_directory, run_directory
from tests.containers.probe_image import probe_image
from tests.lab.conftest import NOTHING, RunLab, copy_checkout, in_docker, remains, wait_for_line


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence at the end of standard error; no traceback may stand there."""
    assert "Traceback" not in done.stderr, done.stderr
    assert "lab: " in done.stderr, done.stderr
    return done.stderr[done.stderr.index("lab: ") :].strip()


@pytest.mark.parametrize(
    ("target", "hint"),
    [("locl", "did you mean local?"), ("35.22", "did you mean 35.2?"), ("nothing-like-it", "`lab list` shows all")],
)
def test_an_unknown_lab_is_refused_with_the_nearest(lab: RunLab, target: str, hint: str) -> None:
    done = lab("up", target)
    assert done.returncode == 2
    assert hint in sentence(done)


@pytest.mark.parametrize(
    ("cluster", "hint"),
    [("eks", "use kind, or context:NAME"), ("context:t-nowhere", "has a context 't-nowhere'")],
)
def test_a_cluster_that_is_not_there_is_told(lab: RunLab, name: str, cluster: str, hint: str) -> None:
    done = lab("up", "kubernetes", "--name", name, "--cluster", cluster)
    assert done.returncode == 2
    assert hint in sentence(done)
    assert remains(name) == NOTHING


def test_without_docker_there_is_no_kind_cluster(lab: RunLab, name: str) -> None:
    done = lab("up", "kubernetes", "--name", name, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 1
    assert "no Docker daemon answers; install Docker (on Debian docker.io" in sentence(done)
    assert remains(name) == NOTHING


REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

CLASSES = "/apis/storage.k8s.io/v1/storageclasses"

DEFAULT = {"metadata": {"name": "a", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}


@dataclass
class PretendedCluster:
    """An API server that answers what is asked of a cluster before a lab is put there.

    Attributes:
        answers: by path; what is not there does not exist.
        asked: method and path of each request.
    """

    answers: dict[str, Any]
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def kubeconfig(self, folder: Path) -> str:
        """The path of a kubeconfig whose context `theirs` leads there."""
        values = {
            "contexts": [{"name": "theirs", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "hidden"}}],
        }
        path = folder / "config"
        path.write_text(json.dumps(values))
        return str(path)


@pytest.fixture
def pretended() -> Iterator[PretendedCluster]:
    """A cluster on which a lab could be."""
    found = PretendedCluster(
        {
            "/version": {"major": "1", "minor": "34"},
            REVIEW: {"status": {"allowed": True}},
            CLASSES: {"items": [DEFAULT]},
        }
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            found.asked.append((self.command, path))
            content = json.dumps(found.answers.get(path, {"message": "not found"})).encode()
            self.send_response(200 if path in found.answers else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answers", "arguments", "hint"),
    [
        (
            {"/version": {"major": "1", "minor": "29+"}},
            [],
            "theirs runs Kubernetes 1.29; the labs need 1.30 or newer: upgrade it, or name another cluster with --clus",
        ),
        ({REVIEW: {"status": {"allowed": False}}}, [], "does not let this user create a namespace; ask for the right"),
        ({CLASSES: {"items": []}}, [], "has no default storage class, of which the volumes"),
        ({}, ["--with", "metrics-server"], "has no metrics-server that answers: install it there as its makers say"),
    ],
)
def test_a_cluster_that_lacks_what_labs_need_is_told_before_anything_is_made_there(
    lab: RunLab,
    name: str,
    tmp_path: Path,
    pretended: PretendedCluster,
    answers: dict[str, Any],
    arguments: list[str],
    hint: str,
) -> None:
    pretended.answers.update(answers)
    config = pretended.kubeconfig(tmp_path)
    done = lab("up", "kubernetes", "--name", name, "--cluster", "context:theirs", *arguments, KUBECONFIG=config)
    assert done.returncode == 2
    assert hint in sentence(done)
    assert {each for each in pretended.asked if each[0] != "GET"} <= {("POST", REVIEW)}
    assert ("GET", "/version") in pretended.asked
    assert "hidden" not in done.stderr
    assert remains(name) == NOTHING


def test_a_cluster_that_does_not_answer_is_told(lab: RunLab, name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = PretendedCluster({}, port=server.getsockname()[1])
    config = gone.kubeconfig(tmp_path)
    done = lab("up", "kubernetes", "--name", name, "--cluster", "context:theirs", KUBECONFIG=config)
    assert done.returncode == 1
    assert f"the Kubernetes API at http://127.0.0.1:{gone.port} does not answer" in sentence(done)
    assert remains(name) == NOTHING


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("kind: Pod\nspec: {containers: [{name: main}]}", "has the containers main: the first must be base"),
        (
            "kind: Pod\nspec: {containers: [{name: base, imagePulPolicy: Always}]}",
            "has spec.containers[0].imagePulPolicy, which Kubernetes does not know: did you mean imagePullPolicy?",
        ),
    ],
)
def test_a_pod_template_of_no_use_is_refused(lab: RunLab, name: str, tmp_path: Path, text: str, hint: str) -> None:
    template = tmp_path / "pod.yaml"
    template.write_text(text)
    done = lab("up", "kubernetes", "--name", name, "--pod-template", str(template))
    assert done.returncode == 2
    assert hint in sentence(done)
    assert remains(name) == NOTHING


@pytest.mark.parametrize("verb", ["down", "status", "verify", "logs", "open"])
def test_a_lab_that_does_not_exist_is_named(lab: RunLab, verb: str) -> None:
    done = lab(verb, "t-none")
    assert done.returncode == 2
    assert "there is no lab 't-none' here" in sentence(done)


@pytest.mark.parametrize("name", ["No", "a/b", "x" * 41, "-a"])
def test_a_name_that_cannot_be_a_folder_is_refused(lab: RunLab, name: str) -> None:
    done = lab("up", "local", f"--name={name}")
    assert done.returncode == 2
    assert "is not a lab name" in sentence(done)


@pytest.mark.parametrize("option", ["parallelism=4", "core.parallelism"])
def test_an_option_without_section_or_value_is_refused(lab: RunLab, name: str, option: str) -> None:
    done = lab("up", "local", "--name", name, "--set", option)
    assert done.returncode == 2
    assert option in sentence(done)
    assert remains(name) == NOTHING


@pytest.mark.parametrize(
    ("target", "arguments", "hint"),
    [
        ("celery", ["--with", "flowr"], "there is no extra 'flowr': did you mean flower?"),
        ("celery", ["--with", "log-store"], "log-store needs KubernetesExecutor, which the lab celery lacks: use kube"),
        ("edge", ["--with", "flower"], "flower needs CeleryExecutor, which the lab edge lacks: use celery"),
        ("celery", ["--with", "metrics-server"], "needs the platform kubernetes: add --platform kubernetes"),
        ("kubernetes", ["--cluster", "context:a", "--dedicated"], "--dedicated is for kind clusters: leave it out"),
        (
            "celery",
            ["--config", "workers.io.queues=io_bond"],
            "'io_bond', a queue that no lab has: did you mean io_bound?",
        ),
        ("celery", ["--config", "workers.default.replicas=0"], "workers.default.replicas is 0: it takes a number, 1"),
        ("celery", ["--config", "workers.default.concurrency=0"], "workers.default.concurrency is 0: it takes"),
        ("edge", ["--config", "sites.site-a.concurrency=0"], "sites.site-a.concurrency is 0: it takes"),
        ("multi", ["--config", "executors=LocalExecutor,CelryExecutor"], "did you mean CeleryExecutor?"),
        ("multi", ["--config", "executors=LocalExecutor,LocalExecutor"], "has LocalExecutor twice"),
        (
            "celery",
            ["--set", "celery.broker_url=redis://:hidden@h:1"],
            "--set celery.broker_url: the lab sets that itself",
        ),
        (
            "celery",
            ["--config", "autoscaling.compute.most=3"],
            "autoscaling is for the platform kubernetes: add --plat",
        ),
        (
            "celery",
            ["--platform", "kubernetes", "--config", "autoscaling.compute.most=3"],
            "autoscaling.compute looks at CPU, which nothing measures: add --with metrics-server",
        ),
        (
            "celery",
            [
                *("--platform", "kubernetes", "--config", "autoscaling.compute.most=3"),
                *("--config", "autoscaling.compute.by=tasks"),
            ],
            "autoscaling.compute looks at tasks, which nothing counts: add --with keda",
        ),
        (
            "celery",
            ["--config", "autoscaling.compute.most=1", "--config", "autoscaling.compute.least=2"],
            "autoscaling.compute.least is 2, more than the 1 of autoscaling.compute.most: give less, or more",
        ),
        ("celery", ["--config", "replicas.scheduler=3"], "to the metadata database, which serves 97: ask for fewer"),
        ("local", ["--set", "database.sql_alchemy_pool_size=many"], "it takes a whole number, as 5"),
    ],
)
def test_a_lab_that_could_not_run_is_refused_before_anything_starts(
    lab: RunLab, name: str, target: str, arguments: list[str], hint: str
) -> None:
    done = lab("up", target, "--name", name, *arguments)
    assert done.returncode == 2
    assert hint in sentence(done)
    assert "hidden" not in done.stderr
    assert remains(name) == NOTHING


def test_a_taken_port_is_refused_with_its_holder(lab: RunLab, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = lab("up", "local", "--name", name, "--port", str(port))
    assert done.returncode == 1
    assert f"port {port}, asked for api-server-http, is taken by process {os.getpid()}" in sentence(done)
    assert remains(name) == NOTHING


def test_a_database_url_that_is_not_postgresql_is_refused(lab: RunLab, name: str) -> None:
    done = lab("up", "local", "--name", name, "--database-url", "mysql://u:hidden@h/db")
    assert done.returncode == 2
    assert "MetadataDatabaseArgs.url names no PostgreSQL database (scheme 'mysql')" in sentence(done)
    assert "hidden" not in done.stderr
    assert remains(name) == NOTHING


def test_a_database_that_does_not_answer_ends_in_the_migration_log(lab: RunLab, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = lab("up", "local", "--name", name, "--database-url", f"postgresql://u:hidden@127.0.0.1:{port}/db")
    assert done.returncode == 1
    assert "migration failed" in sentence(done)
    assert "Connection refused" in done.stderr
    assert "hidden" not in done.stderr
    assert remains(name) == NOTHING


def test_a_service_that_dies_at_start_shows_its_last_lines(lab: RunLab, name: str) -> None:
    done = lab("up", "local", "--name", name, "--set", "core.parallelism=many")
    assert done.returncode == 1
    assert "scheduler ended while it started; last lines of" in sentence(done)
    assert "many" in sentence(done)
    assert remains(name) == NOTHING


def test_a_lab_directory_of_another_version_is_left_alone(lab: RunLab, name: str) -> None:
    home = run_directory(name)
    home.mkdir(parents=True)
    (home / "lab.json").write_text(json.dumps({"layout": 99}))
    (home / "precious").write_text("kept")
    done = lab("up", "local", "--name", name)
    assert done.returncode == 1
    assert "layout 99" in sentence(done)
    assert (home / "precious").read_text() == "kept"
    shutil.rmtree(lab_directory(name))


def test_a_corrupt_checkpoint_is_named_and_kept(lab: RunLab, name: str) -> None:
    directory = engine_directory(name)
    directory.mkdir(parents=True)
    (directory / "request.json").write_text(json.dumps({"engine": "embedded", "config": {}}))
    (directory / "checkpoint.json").write_text('{"version": ')
    done = lab("up", "local", "--name", name, "--engine", "embedded")
    assert done.returncode == 1
    assert str(directory / "checkpoint.json") in sentence(done)
    assert (directory / "checkpoint.json").read_text() == '{"version": '
    shutil.rmtree(lab_directory(name))


def test_a_second_up_at_the_same_time_is_refused(lab: RunLab, name: str) -> None:
    command = [str(PROJECT_ROOT / "lab"), "up", "local", "--name", name, "--engine", "embedded"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as first:
        wait_for_line(first, "home made")
        done = lab("up", "local", "--name", name, "--engine", "embedded")
        assert done.returncode == 1
        assert f"`up` of lab {name} is running as process" in sentence(done)
        first.communicate(timeout=300)
    assert first.returncode == 0
    assert lab("status", name).returncode == 0


def test_a_cache_that_cannot_be_written_is_named(lab: RunLab, name: str) -> None:
    done = lab("up", "local", "--name", name, XDG_CACHE_HOME="/proc/nowhere")
    assert done.returncode == 1
    assert "/proc/nowhere/airflow-executor-labs cannot be written" in sentence(done)
    assert "XDG_CACHE_HOME" in sentence(done)
    assert remains(name) == NOTHING


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own can only be mounted by root")
def test_a_full_disk_is_named_and_nothing_stays(name: str) -> None:
    disk = Path(tempfile.mkdtemp(prefix="airflow-lab-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", str(disk)], check=True)
    try:
        root = copy_checkout(disk / "checkout")
        (root / ".venv").symlink_to(PROJECT_ROOT / ".venv")
        done = subprocess.run(
            [sys.executable, "-m", "labs", "up", "local", "--name", name, "--engine", "embedded"],
            cwd=root,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "MiB of free disk and needs" in sentence(done)
        # with the Pulumi CLI on the PATH, its file backend is there
        assert {path.name for path in (root / ".lab").glob("*")} <= {"pulumi"}
    finally:
        processes.end_all(str(disk / "checkout" / ".lab" / name / "run"))
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        disk.rmdir()


def test_a_python_that_is_too_old_is_refused(copy: Path) -> None:
    fake = copy / "bin"
    fake.mkdir()
    for tool in ("readlink", "dirname", "cmp", "sh"):
        (fake / tool).symlink_to(str(shutil.which(tool)))
    for version in ("python3", "python3.10", "python3.11", "python3.12", "python3.13"):
        (fake / version).write_text("#!/bin/sh\nexit 1\n")
        (fake / version).chmod(0o755)
    done = subprocess.run([str(copy / "lab"), "list"], capture_output=True, text=True, env={"PATH": str(fake)})
    assert done.returncode == 1
    assert "no Python 3.10 to 3.13 found" in sentence(done)
    assert not (copy / ".venv").exists()


def test_a_registry_that_is_not_reached_leaves_nothing(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
    settings = {"PIP_INDEX_URL": nowhere, "UV_INDEX_URL": nowhere, "UV_DEFAULT_INDEX": nowhere, "UV_NO_CACHE": "1"}
    settings |= {"PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [str(copy / "lab"), "list"], capture_output=True, text=True, timeout=300, env={**os.environ, **settings}
    )
    assert done.returncode == 1
    assert "check that the package registry is reachable" in sentence(done)
    assert not (copy / ".venv").exists()


def test_doctor_finds_this_machine_fit(lab: RunLab) -> None:
    done = lab("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["lab local"]["verdict"] == "ok"
    assert findings["cache"]["found"] == str(cache_root())
    assert findings["lab kubernetes"]["verdict"] == findings["kubernetes platform"]["verdict"]  # as Docker is


@pytest.mark.usefixtures("docker")
def test_a_container_that_is_killed_during_up_is_told_and_nothing_stays(name: str) -> None:
    command = [str(PROJECT_ROOT / "lab"), "up", "local", "--name", name, "--engine", "embedded", "--platform", "docker"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as up:
        wait_for_line(up, "scheduler made")
        subprocess.run(["docker", "kill", f"airflow-lab-{name}-scheduler"], check=True, capture_output=True)
        _, said = up.communicate(timeout=300)
    assert up.returncode == 1
    assert "Traceback" not in said
    assert "lab: scheduler ended while it started; the last lines of its log" in said
    assert remains(name) == NOTHING


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("kind", ["network", "container"])
def test_what_is_somebody_elses_in_docker_is_refused_and_left_alone(lab: RunLab, name: str, kind: str) -> None:
    with probe_image() as image, daemon() as client:
        if kind == "network":
            theirs = client.networks.create(f"airflow-lab-{name}")
        else:
            theirs = client.containers.create(image, ["sleep", "1"], name=f"airflow-lab-{name}-metadata-database")
        try:
            before = in_docker()[theirs.id]
            done = lab("up", "local", "--platform", "docker", "--name", name, "--engine", "embedded")
            assert done.returncode == 1
            assert f"there is a {kind} {theirs.name} that is not of this lab; remove or rename it" in sentence(done)
            assert "\n" not in sentence(done)
            assert in_docker()[theirs.id] == before
            assert remains(name) == NOTHING
        finally:
            theirs.remove()
