"""What a stack's configuration may change of a lab, and every sentence that refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.airflow import check_options
from components.workers import Site, Workers
from labs.cli import _shape
from labs.errors import UsageError
from labs.lab import Lab
from stacks.catalogue import EDGE, LABS, check_runnable
from stacks.configuration import check_extras, configured, read_template


def shaped(lab: str, *pairs: str) -> Any:
    """The lab as `--config` shapes it."""
    return configured(LABS[lab], _shape(pairs))


def test_what_is_not_named_stays() -> None:
    assert shaped("celery") == LABS["celery"]
    workers = shaped("celery", "workers.io.concurrency=4").workers
    assert workers["io"] == Workers(("io_bound",), concurrency=4)
    assert {**workers, "io": LABS["celery"].workers["io"]} == LABS["celery"].workers


def test_a_new_name_is_a_new_group() -> None:
    lab = shaped("edge", "sites.site-c.queues=site_a,site_b", "sites.site-c.concurrency=3")
    assert lab.sites["site-c"] == Site(("site_a", "site_b"), concurrency=3)
    assert shaped("celery", "workers.io.autoscale=[4, 1]").workers["io"].autoscale == (4, 1)


def test_another_executor_brings_its_workers() -> None:
    pairs = ("executors=LocalExecutor,CeleryExecutor", "workers.default.queues=default")
    lab = shaped("local", *pairs)
    assert (lab.executors, list(lab.workers)) == (("LocalExecutor", "CeleryExecutor"), ["default"])


@pytest.mark.parametrize(
    ("lab", "pairs", "sentence"),
    [
        ("local", ["executors=LocalExecutr"], r"'LocalExecutr', which is no executor: did you mean LocalExecutor\?"),
        ("local", ["executors=SequentialExecutor"], r"'SequentialExecutor', which is no executor"),
        ("local", ["executors="], r"the executor list of local is empty"),
        ("local", ["executors=[LocalExecutor, LocalExecutor]"], r"the executor list of local has LocalExecutor twice"),
        ("local", ["executors=a:LocalExecutor,LocalExecutor"], r"has LocalExecutor twice: Airflow takes each once"),
        ("edge", ["executors=EdgeExecutor"], rf"'EdgeExecutor', which is no executor: .*use .*{EDGE}"),
        ("local", ["executors=LocalExecutor,CeleryExecutor"], r"CeleryExecutor has no workers in the lab local: add"),
        ("local", [f"executors={EDGE}"], r"EdgeExecutor has no sites in the lab local: add"),
        ("celery", ["executors=LocalExecutor"], r"has no CeleryExecutor for its workers default, heavy, io, compute"),
        ("celery", ["workers.io.queues=io_bond"], r"workers.io.queues has 'io_bond', a queue that no lab has: did you"),
        ("edge", ["sites.site-a.queues=mars"], r"sites.site-a.queues has 'mars', a queue that no lab has: use compute"),
        ("celery", ["workers.io.queues="], r"workers.io.queues is \(\): name at least one queue"),
        ("celery", ["workers.new.concurrency=2"], r"workers.new.queues is \(\): name at least one queue"),
        ("celery", ["workers.io.replicas=0"], r"workers.io.replicas is 0: it takes a number, 1 or more"),
        ("celery", ["workers.io.concurrency=0"], r"workers.io.concurrency is 0: it takes a number"),
        ("celery", ["workers.io.concurrency=many"], r"workers.io.concurrency is 'many': it takes a number"),
        ("celery", ["workers.io.prefetch=-1"], r"workers.io.prefetch is -1: it takes a number"),
        ("celery", ["workers.io.autoscale=[1, 4]"], r"workers.io.autoscale is \(1, 4\): give the largest size, then"),
        ("celery", ["workers.io.autoscale=4"], r"workers.io.autoscale is 4: give the largest size, then"),
        ("edge", ["sites.site-a.concurrency=0"], r"sites.site-a.concurrency is 0: it takes a number, 1 or more"),
        ("edge", ["sites.site-a.prefetch=2"], r"sites.site-a has no 'prefetch': use queues, concurrency"),
        ("celery", ["workers.io.concurency=2"], r"workers.io has no 'concurency': did you mean concurrency\?"),
        ("celery", ["workers.Up.queues=default"], r"workers.Up: name it with lower-case letters"),
        ("celery", ["workers.io=4"], r"workers.io is 4: write workers.io.FIELD=VALUE"),
        ("celery", ["workers=4"], r"workers is 4: write workers.NAME.FIELD=VALUE"),
        ("celery", ["workers.io=4", "workers.io.queues=default"], r"io was given a value of its own already"),
        ("celery", ["worker.io.concurrency=4"], r"a lab has no 'worker' to configure: did you mean workers\?"),
        (
            "ha",
            ["budgets.scheduler=2"],
            r"budgets.scheduler is 2 of 2, with which no node could ever be drained: give 0 t",
        ),
        (
            "ha",
            ["budgets.scheduler=1", "replicas.scheduler=1"],
            r"budgets.scheduler: ha has not several of it: use api",
        ),
        ("ha", ["budgets.schedular=1"], r"budgets.schedular: ha has not several of it: did you mean scheduler\?"),
        ("local", ["budgets.scheduler=1"], r"budgets.scheduler: local has not several of it: there are several of no"),
        ("celery", ["autoscaling.compute.most=0"], r"autoscaling.compute.most is 0: it takes a number, 1 or more"),
        ("celery", ["autoscaling.compute.least=2"], r"autoscaling.compute.most is 0: it takes a number, 1 or more"),
        (
            "celery",
            ["autoscaling.compute.most=2", "autoscaling.compute.least=3"],
            r"autoscaling.compute.least is 3, more than the 2 of autoscaling.compute.most: give less, or more",
        ),
        (
            "celery",
            ["autoscaling.compute.most=2", "autoscaling.compute.by=memory"],
            r"by is 'memory': use cpu or tasks",
        ),
        (
            "celery",
            ["autoscaling.compute.most=2", "autoscaling.compute.least=0"],
            r"autoscaling.compute.least is 0: it takes a number, 1 or more",
        ),
        (
            "celery",
            ["autoscaling.compute.most=2", "autoscaling.compute.by=tasks", "workers.io.queues=io_bound,compute"],
            r"counts tasks of the queue compute, which workers.io serves, too: nobody could tell whose they are; take",
        ),
        (
            "celery",
            ["autoscaling.api-server.most=2", "autoscaling.api-server.by=tasks"],
            r"autoscaling.api-server.by is 'tasks', and an api-server runs none: use cpu",
        ),
        ("celery", ["autoscaling.compute.mots=2"], r"autoscaling.compute has no 'mots': did you mean most\?"),
        (
            "celery",
            ["autoscaling.compte.most=2"],
            r"autoscaling.compte: did you mean compute\? use default, heavy, io, compute, api-server",
        ),
        (
            "celery",
            ["autoscaling.io.most=2", "workers.io.replicas=2"],
            r"autoscaling.io and workers.io.replicas=2 exclude each other: add workers.io.replicas=1",
        ),
        (
            "ha",
            ["autoscaling.api-server.most=3"],
            r"autoscaling.api-server and replicas.api-server=2 exclude each other: add replicas.api-server=1",
        ),
        ("celery", ["workers.io.concurrency"], r"--config workers.io.concurrency: write PATH=VALUE"),
        ("celery", ["workers.io.queues=[a"], r"--config workers.io.queues=\[a: write PATH=VALUE"),
    ],
)
def test_what_cannot_run_is_refused(lab: str, pairs: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        shaped(lab, *pairs)


def test_what_stands_in_for_one_another_is_kept_but_for_one() -> None:
    roles = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
    assert LABS["ha"].spares() == dict.fromkeys(roles, 1)
    assert shaped("ha", "budgets.scheduler=0").spares()["scheduler"] == 0
    assert LABS["celery"].spares() == LABS["multi"].spares() == {}  # other queues are no second one
    assert shaped("celery", "replicas.scheduler=3").spares() == {"scheduler": 2}
    with pytest.raises(UsageError, match="budgets are for the platform kubernetes"):
        check_runnable(shaped("ha", "budgets.scheduler=0"), "docker")


def test_an_autoscaler_has_what_it_looks_at_and_where_it_runs() -> None:
    lab = shaped("celery", "autoscaling.compute.most=3")
    assert lab.bounds("compute") == (1, 3) and lab.bounds("io") == lab.bounds("api-server") == (1, 1)
    check_runnable(lab, "kubernetes")
    check_extras(lab, "kubernetes", ["metrics-server"])
    with pytest.raises(
        UsageError, match=r"autoscaling is for the platform kubernetes: add --platform kubernetes, or g"
    ):
        check_runnable(lab, "process")
    with pytest.raises(UsageError, match=r"autoscaling.compute looks at CPU, which nothing measures: add --with metri"):
        check_extras(lab, "kubernetes", [])


def test_an_autoscaler_of_tasks_may_keep_none_and_has_who_counts_them() -> None:
    lab = shaped("celery", *(f"autoscaling.compute.{pair}" for pair in ("most=3", "least=0", "by=tasks")))
    assert lab.bounds("compute") == (0, 3)
    check_extras(lab, "kubernetes", ["keda"])
    with pytest.raises(UsageError, match=r"autoscaling.compute looks at tasks, which nothing counts: add --with keda"):
        check_extras(lab, "kubernetes", ["metrics-server"])


def test_an_autoscaler_counts_for_what_it_keeps_at_least() -> None:
    lab = shaped("celery", "autoscaling.api-server.most=4", "autoscaling.api-server.least=2")
    assert lab.spares() == {"api-server": 1}
    assert shaped("ha", "autoscaling.zone-a.most=4").spares()["worker"] == 1


@pytest.mark.parametrize("option", ["core.executor", "celery.broker_url", "database.sql_alchemy_conn"])
def test_an_option_that_the_lab_sets_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"--set {option}: the lab sets that itself"):
        check_options([option])


def test_an_extra_is_known_and_fits_its_lab() -> None:
    check_extras(LABS["celery"], "process", ["flower"])
    check_extras(LABS["celery"], "kubernetes", ["flower", "metrics-server"])
    check_extras(LABS["kubernetes"], "kubernetes", ["log-store"])
    with pytest.raises(UsageError, match=r"log-store needs KubernetesExecutor, which the lab celery lacks: use kubern"):
        check_extras(LABS["celery"], "kubernetes", ["log-store"])
    with pytest.raises(UsageError, match=r"there is no extra 'flowr': did you mean flower\? use flower"):
        check_extras(LABS["celery"], "process", ["flowr"])
    with pytest.raises(UsageError, match=r"flower needs CeleryExecutor, which the lab edge lacks: use celery, multi"):
        check_extras(LABS["edge"], "process", ["flower"])
    with pytest.raises(UsageError, match=r"metrics-server needs the platform kubernetes: add --platform kubernetes"):
        check_extras(LABS["celery"], "docker", ["metrics-server"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Pod\nspec: {containers: [{name: main}]}", "has the containers main: the first must be base"),
        ("kind: Deployment\nspec: {containers: []}", "has the containers none"),
        ("kind: Pod", "is no pod as YAML"),
        ("a: [", "is no pod as YAML"),
        (
            "kind: Pod\nspec: {containers: [{name: base}], nodeSelectr: {a: b}}",
            r"has spec\.nodeSelectr, which Kubernetes does not know: did you mean nodeSelector\? correct it",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: base, env: [{name: A, valueFrom: {fieldReff: {}}}]}]}",
            r"has spec\.containers\[0\]\.env\[0\]\.valueFrom\.fieldReff, which .*: did you mean fieldRef\?",
        ),
    ],
)
def test_a_template_of_no_use_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_template(path)
    with pytest.raises(UsageError, match="is no pod as YAML"):
        read_template(tmp_path / "absent")
    path.write_text("kind: Pod\nspec: {containers: [{name: base}, {name: log}]}")
    assert read_template(path) == path.read_text()


def test_an_image_is_for_containers() -> None:
    Lab.request("celery", platform="docker", airflow_image="mine:1", engine="embedded")
    with pytest.raises(UsageError, match="--airflow-image is for containers: add --platform docker or"):
        Lab.request("celery", airflow_image="mine:1", engine="embedded")


def test_what_is_for_pods_is_refused_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("kind: Pod\nspec: {containers: [{name: base}]}")
    with pytest.raises(UsageError, match="which the lab local lacks"):
        Lab.request("local", pod_template=path, engine="embedded")
    with pytest.raises(UsageError, match="add --platform kubernetes"):
        Lab.request("celery", dedicated=True, engine="embedded")
    with pytest.raises(UsageError, match="--dedicated is for kind clusters"):
        Lab.request("kubernetes", dedicated=True, cluster="context:theirs", engine="embedded")
    assert "airflow-labs:pod_template" in Lab.request("kubernetes", pod_template=path, engine="embedded").stack.config
