"""A task can tell which executor should run it, and which one does.

Hint: the log of `compare` has both answers; where they differ, the worker was started by another executor than its
configuration names.
"""

import pytest

BRANCHES = {
    "LocalExecutor": "on_local",
    "CeleryExecutor": "on_celery",
    "KubernetesExecutor": "on_kubernetes",
    "EdgeExecutor": "on_edge",
}


@pytest.fixture(scope="module")
def answers(run_dag):
    """One run, in which a task asks the configuration and another one looks at its own process."""
    return run_dag()


def test_the_configuration_knows(answers, executor, evidence):
    """Asked through `airflow.configuration`, Airflow names the lab's executors, the default first."""
    found, lines = answers.xcom("ask_configuration"), answers.log("ask_configuration")
    evidence("configuration", found)
    assert found["executor"] == executor, f"the configuration says {found['executor']}, the lab is made with {executor}"
    assert answers.one("ask_configuration").executor is found["requested"] is None
    assert "airflow.configuration says [core] executor = " in lines
    assert "airflow.sdk.conf      says [core] executor = " in lines


def test_the_process_knows(answers, executor, evidence):
    """Asked for what started it, the task's own process names the same executor."""
    found, recorded = answers.xcom("look_at_process"), answers.one("look_at_process")
    evidence("process", {**found, "recorded pid": recorded.pid})
    assert found["pid"] == recorded.pid, "it looked at another process than Airflow recorded"
    assert found["executor"] == executor, f"the process says {found['executor']}, the lab is made with {executor}"


def test_both_answers_are_logged(answers, executor, evidence):
    """The log of `compare` has both answers, and they agree."""
    lines = [line for line in answers.log("compare").splitlines() if "configured: " in line]
    evidence("log", lines)
    assert len(lines) == 1 and lines[0].endswith(f"configured: {executor}, running: {executor}"), (
        f"the answers in the log differ from {executor}: {lines}"
    )
    assert answers.xcom("compare")["agree"] is True


def test_it_decides_what_runs(answers, executor, evidence):
    """Of five branches, only the one of the lab's executor ran; the others were skipped."""
    states = {ti.task_id: ti.state for ti in answers.instances if ti.task_id.startswith("on_")}
    evidence("branches", states)
    taken = [branch for branch, state in states.items() if state == "success"]
    assert taken == [BRANCHES[executor]], f"the branches taken are {taken}, on {executor}"
    assert sorted(states.values()) == ["skipped"] * 4 + ["success"]
