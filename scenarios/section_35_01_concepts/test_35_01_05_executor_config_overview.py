"""An executor's options come from the environment, from airflow.cfg, or are defaults.

Hint: the log of `core_options` says for each option where it comes from.
"""

import configparser

import pytest

from components.airflow import FILE_SETTINGS, variable


@pytest.fixture(scope="module")
def overview(run_dag):
    """One run, in which tasks read the configuration that they run with."""
    return run_dag()


@pytest.fixture(scope="module")
def options(overview):
    """What the task found of `[core]`: value, source and default by option."""
    return overview.xcom("core_options")["options"]


def test_the_environment_comes_first(lab, overview, options, evidence):
    """What is set in the environment is in force, such as the lab's executor."""
    found, names = options["executor"], overview.xcom("environment")["names"]
    evidence("[core] executor", {**found, "of the lab": lab.executors})
    evidence("variables", names)
    assert found["source"] == "env var", f"[core] executor comes from {found['source']}"
    assert found["value"] == ",".join(lab.executors)
    assert "AIRFLOW__CORE__EXECUTOR" in names
    assert "AIRFLOW__CORE__EXECUTOR overrides [core] executor" in overview.log("environment")


@pytest.mark.needs(executor="LocalExecutor")
def test_what_the_lab_sets_is_in_force(lab, overview, options, evidence):
    """A task of LocalExecutor runs with the scheduler's options, so also with the lab's parallelism."""
    wanted, found = lab.outputs["options"], options["parallelism"]
    evidence("[core] parallelism", {**found, "set by the lab": wanted["core.parallelism"]})
    assert found["source"] == "env var", f"[core] parallelism comes from {found['source']}"
    assert found["value"] == wanted["core.parallelism"] != found["default"], (
        f"[core] parallelism is {found['value']}, but the lab is made with {wanted['core.parallelism']}"
    )
    missing = {variable(option) for option in wanted} - set(overview.xcom("environment")["names"])
    assert not missing, f"the task's environment lacks {', '.join(sorted(missing))}"


@pytest.mark.needs(executor=("LocalExecutor", "CeleryExecutor", "KubernetesExecutor"))  # an edge site has no file
def test_then_the_file(overview, options, host, evidence):
    """What stands in airflow.cfg, and not in the environment, is in force too."""
    path = overview.xcom("core_options")["file"]
    file = configparser.ConfigParser(interpolation=None)
    file.read_string(host("scheduler").file(path).content_string)
    found = options["load_examples"]
    evidence("[core] load_examples", {**found, "file": path, "in the file": file["core"]["load_examples"]})
    assert found["source"] == "airflow.cfg", f"[core] load_examples comes from {found['source']}"
    assert found["value"] == file["core"]["load_examples"] == FILE_SETTINGS["core"]["load_examples"]
    assert found["value"] != found["default"]
    assert not file.has_option("core", "max_active_runs_per_dag")


def test_then_the_default(overview, options, evidence):
    """What nobody has set has the value that is built into Airflow."""
    found = options["max_active_runs_per_dag"]
    evidence("[core] max_active_runs_per_dag", found)
    assert (found["source"], found["value"]) == ("default", found["default"])
    assert "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG" not in overview.xcom("environment")["names"]


def test_the_log_says_where_from(overview, options, evidence):
    """For each option of `[core]` the log has value, source and default."""
    log = overview.log("core_options")
    evidence("log", [line for line in log.splitlines() if "(from:" in line])
    for key, found in options.items():
        line = f"[core] {key} = {found['value']}   (from: {found['source']}, default: {found['default']})"
        assert line in log, f"the log lacks {line!r}"


def test_executors_have_sections(overview, evidence):
    """The other executors have a section each; a URL that may hold a password is hidden."""
    sections = overview.xcom("executor_sections")
    evidence("sections", sections)
    assert set(sections) == {"CeleryExecutor", "KubernetesExecutor", "EdgeExecutor"}
    assert all(any(option["source"] for option in options.values()) for options in sections.values())
    assert sections["CeleryExecutor"]["worker_concurrency"]["value"].isdigit()
    assert sections["CeleryExecutor"]["broker_url"]["value"] == "< hidden >"


def test_the_configuration_is_valid(overview, lab, evidence):
    """`validate` finds no problem: no option that does nothing, and a provider for each executor."""
    found = overview.xcom("validate")
    evidence("validation", found)
    assert found["valid"], f"the configuration has problems: {'; '.join(found['problems'])}"
    assert found["executor"] == ",".join(lab.executors)
    assert "problems found: 0" in overview.log("validate")
