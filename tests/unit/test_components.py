"""Argument mistakes by their message, and the pure functions behind the components."""

from __future__ import annotations

import configparser
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from components.airflow import check_coherence, read_by, settings_file, variable, version
from components.celery_workers import EXECUTOR, count_of_tasks
from components.dag_folder import section_folders
from components.database import CONNECTIONS, RESERVED, check_connections, check_url, limited
from components.platforms.process import resources
from components.replicas import replica_names
from components.task_pods import check_executors
from labs.cache import IMAGES
from labs.errors import UsageError
from labs.paths import PROJECT_ROOT
from labs.verify import scenario_paths
from stacks.catalogue import EDGE, LABS, SECTIONS, STACKS, VARIANTS, Lab, check_runnable, find_lab
from stacks.configuration import configured
from stacks.topology import connections
from tests.unit.pretending import Pretender, outputs_of


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("core.parallelism", "AIRFLOW__CORE__PARALLELISM"),
        ("kubernetes_executor.namespace", "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE"),
    ],
)
def test_an_option_has_the_variable_that_airflow_documents(option: str, expected: str) -> None:
    assert variable(option) == expected


def test_an_option_without_section_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'parallelism' has no section: write section\.key"):
        variable("parallelism")


def test_only_the_scheduler_reads_its_own_options() -> None:
    assert read_by("core.parallelism", "scheduler")
    assert not read_by("core.parallelism", "api-server")
    assert not read_by("scheduler.orphaned_tasks_check_interval", "triggerer")
    assert read_by("core.default_timezone", "api-server")


def test_the_settings_file_is_one_that_airflow_parses() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(settings_file())
    assert parser["core"]["load_examples"] == "False"


def test_components_that_differ_in_a_shared_setting_are_named_without_the_values() -> None:
    environments = {
        "scheduler": {"AIRFLOW__API_AUTH__JWT_SECRET": "one"},
        "api-server": {"AIRFLOW__API_AUTH__JWT_SECRET": "two"},
        "triggerer": {"AIRFLOW__API_AUTH__JWT_SECRET": "one"},
    }
    with pytest.raises(UsageError) as refused:
        check_coherence(environments)
    assert "AIRFLOW__API_AUTH__JWT_SECRET differs between scheduler/triggerer and api-server" in str(refused.value)
    assert "one" not in str(refused.value)
    check_coherence(dict.fromkeys(environments, environments["scheduler"]))


@pytest.mark.parametrize("url", ["mysql://u:p@h/db", "sqlite:////tmp/x.db", "postgresql://h", "postgresql:///db", "x"])
def test_a_database_that_is_not_postgresql_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"MetadataDatabaseArgs\.url"):
        check_url(url)


def test_a_postgresql_url_gets_the_driver_that_the_environment_has() -> None:
    assert check_url("postgresql://u:p@h:5433/db") == "postgresql+psycopg2://u:p@h:5433/db"


def test_a_client_of_a_database_waits_for_so_long_and_no_longer() -> None:
    url = limited("postgresql+psycopg2://u:p@h:5433/db?sslmode=require&connect_timeout=60")
    assert url == (
        "postgresql+psycopg2://u:p@h:5433/db?connect_timeout=60&keepalives_idle=10&keepalives_interval=5"
        "&keepalives_count=4&tcp_user_timeout=30000&sslmode=require"
    )


@pytest.mark.parametrize("lab", LABS.values(), ids=lambda lab: lab.name)
def test_the_database_of_each_lab_serves_it_without_a_pool(lab: Lab) -> None:
    check_connections(connections(lab, lab.options), CONNECTIONS - RESERVED)


def test_more_schedulers_than_the_database_can_serve_are_refused() -> None:
    lab = configured(LABS["ha"], {"replicas": {"scheduler": 4}})
    with pytest.raises(UsageError, match="may open 108 connections to the metadata database, which serves 97: ask for"):
        check_connections(connections(lab, lab.options), CONNECTIONS - RESERVED)
    scaled = configured(LABS["celery"], {"autoscaling": {"api-server": {"most": 3}}})
    assert connections(scaled, lab.options) - connections(LABS["celery"], lab.options) == 2 * (5 + 5)
    smaller = {**lab.options, "database.sql_alchemy_max_overflow": "0"}
    check_connections(connections(lab, smaller), CONNECTIONS - RESERVED)


def test_workers_without_a_redis_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.shutil, "which", lambda _program: None)
    monkeypatch.setattr(resources, "environment", lambda _name: tmp_path)
    pretender = Pretender()
    with pytest.raises(UsageError, match=r"celery needs Redis, and this machine has no redis-server .*: install"):
        outputs_of("celery", "process", pretender, tmp_path / "engine")
    assert not pretender.made


TASKS = (
    ("queued", "default", None),
    ("running", "default", None),
    ("success", "default", None),
    ("queued", "other", None),
    ("queued", "default", "celery"),
    ("queued", "default", "CeleryExecutor"),
    ("running", "default", EXECUTOR),
    ("running", "default", "edge"),
    ("queued", "default", "KubernetesExecutor"),
)
"""State, queue and executor of task instances."""


@pytest.mark.parametrize(
    ("executors", "found"),
    [
        (["CeleryExecutor"], 4),
        (["celery:CeleryExecutor", "KubernetesExecutor", f"edge:{EDGE}"], 5),
        (["LocalExecutor", "celery:CeleryExecutor"], 3),
        ([f"celery:{EXECUTOR}", "KubernetesExecutor"], 5),
    ],
)
def test_the_tasks_that_are_counted_are_those_of_its_executor_and_queues(executors: list[str], found: int) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE task_instance (state, queue, executor)")
        database.executemany("INSERT INTO task_instance VALUES (?, ?, ?)", TASKS)
        assert database.execute(count_of_tasks(executors, ["default", "it's"])).fetchone() == (found,)


@pytest.mark.parametrize("lab", LABS.values(), ids=lambda lab: lab.name)
def test_the_readme_says_of_each_lab_what_the_catalogue_says(lab: Lab) -> None:
    rows = [line.strip("| ").split(" | ") for line in (PROJECT_ROOT / "README.md").read_text().splitlines()]
    (row,) = [row for row in rows if row[0] == f"`{lab.name}`" and len(row) == 5]
    there = [section for section in SECTIONS if section in lab.sections and section_folders([section])]
    assert row[2:] == [lab.teaches, ", ".join(there), ", ".join(lab.platforms)]


@pytest.mark.parametrize(
    ("replicas", "sentence"),
    [
        ({"schedular": 2}, "replicas.schedular: did you mean scheduler"),
        ({"scheduler": 0}, "replicas.scheduler is 0: it takes a number, 1 or more"),
        ({"triggerer": "two"}, "replicas.triggerer is two: it takes a number"),
    ],
)
def test_replicas_that_cannot_be_are_refused(replicas: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        configured(LABS["ha"], {"replicas": replicas})


def test_one_replica_keeps_the_name_of_its_role() -> None:
    assert replica_names("scheduler", 1) == ["scheduler"]
    assert replica_names("scheduler", 2) == ["scheduler-1", "scheduler-2"]


def test_every_section_is_served_by_a_lab_that_deploys_it() -> None:
    assert list(SECTIONS) == [f"35.{number}" for number in range(1, 11)]
    for section in SECTIONS.values():
        assert section.number in LABS[section.lab].sections
        assert find_lab(section.number) is LABS[section.lab]


def test_every_lab_and_section_has_a_stack() -> None:
    stacks = Path(__file__).parents[2] / "stacks"
    assert {file.name for file in stacks.glob("Pulumi.*.yaml")} == {f"Pulumi.{name}.yaml" for name in STACKS}
    for name in STACKS:
        config = yaml.safe_load((stacks / f"Pulumi.{name}.yaml").read_text())["config"]
        platform = {"airflow-labs:platform": name.rpartition("-")[2]} if name in VARIANTS else {}
        assert config == {"airflow-labs:lab": find_lab(name).name, **platform}


@pytest.mark.parametrize(("asked", "nearest"), [("celry", "celery"), ("35.33", "35.3"), ("kubernets", "kubernetes")])
def test_a_misspelt_lab_is_answered_with_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {nearest}"):
        find_lab(asked)


def test_a_lab_refuses_a_platform_that_it_does_not_run_on() -> None:
    with pytest.raises(UsageError, match="does not run on the platform 'docker': use kubernetes"):
        check_runnable(LABS["kubernetes"], "docker")


def test_a_lab_may_differ_where_there_are_pods() -> None:
    assert LABS["multi"].on("docker") == LABS["multi"] and not LABS["multi"].uses("KubernetesExecutor")
    there = LABS["multi"].on("kubernetes")
    assert there.executors == ("celery:CeleryExecutor", "KubernetesExecutor", f"edge:{EDGE}")
    # the default executor of the portable DAGs has queues there, and somebody serves each of them
    assert {queue for group in there.workers.values() for queue in group.queues} >= {"heavy_compute", "io_bound"}
    assert (there.sites, there.sections) == (LABS["multi"].sites, LABS["multi"].sections)


def test_a_template_of_ones_own_has_the_list_that_tasks_are_parsed_with() -> None:
    def template(*variables: dict[str, str]) -> str:
        containers = [{"name": "base", "env": list(variables)}]
        return yaml.safe_dump({"kind": "Pod", "spec": {"containers": containers}})

    both = ("CeleryExecutor", "KubernetesExecutor")
    other = {"name": "AIRFLOW__CORE__EXECUTOR", "value": "LocalExecutor"}
    check_executors(template(), ("KubernetesExecutor",))
    check_executors(template({**other, "value": ",".join(both)}), both)
    for text, executors in ((template(), both), (template(other), both), (template(other), ("KubernetesExecutor",))):
        with pytest.raises(
            UsageError, match=r"the pod template gives tasks the executor list (none|LocalExecutor), but"
        ):
            check_executors(text, executors)


def test_sections_are_found_by_their_number_alone(tmp_path: Path) -> None:
    for folder in ("section_35_01_concepts", "section_35_10_patterns", "section_35_02_local"):
        (tmp_path / folder).mkdir()
    assert [folder.name for folder in section_folders(["35.1"], tmp_path)] == ["section_35_01_concepts"]
    assert [folder.name for folder in section_folders(["35.10"], tmp_path)] == ["section_35_10_patterns"]


def test_a_section_without_scenarios_is_not_taken_for_one_that_is_proven() -> None:
    assert [folder.name for folder in scenario_paths([], "35.2")] == ["section_35_02_local"]
    with pytest.raises(UsageError, match=r"section 35\.11 has no scenarios here yet"):
        scenario_paths([], "35.11")


def test_the_tool_speaks_to_the_airflow_that_the_images_hold() -> None:
    pinned = (IMAGES.parent / "requirements.lock").read_text()
    assert f"apache-airflow-client=={version()}" in pinned


@pytest.mark.parametrize(
    "lock", [IMAGES.parent / "requirements.lock", *sorted(IMAGES.glob("*.lock"))], ids=lambda f: f.name
)
def test_locks_are_hash_pinned_and_name_no_registry(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    requirements = text.replace("\\\n", " ").splitlines()
    assert requirements
    assert all("--hash=sha256:" in line for line in requirements if line.strip())
