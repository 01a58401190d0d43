"""The DAGs are the curriculum's: its file names, its tags, documented, self-contained, and idle while parsed.

Read with `ast`, as Airflow lives in an environment of its own.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[2] / "dags"
FILES = sorted(path for path in DAGS.rglob("*") if path.is_file() and "__pycache__" not in path.parts)

CURRICULUM = {
    "35_01_01_executor_architecture.py": "reference core beginner success",
    "35_01_02_portable_dag.py": "reference core beginner success",
    "35_01_03_check_current_executor.py": "reference core beginner success",
    "35_01_04_executor_parallelism.py": "reference core intermediate success",
    "35_01_05_executor_config_overview.py": "reference core beginner success",
    "35_02_01_local_parallel_execution.py": "reference core beginner success",
    "35_02_02_parallelism_config.py": "reference core intermediate success",
    "35_02_03_max_active_tasks_per_dag.py": "reference core intermediate success",
    "35_02_04_resource_sharing_local.py": "reference core intermediate success",
    "35_03_01_queue_routing.py": "reference core beginner success",
    "35_03_02_multiple_queues.py": "reference core intermediate success",
    "35_03_03_worker_concurrency.py": "reference core intermediate success",
    "35_03_04_result_backend.py": "reference core intermediate success",
    "35_03_05_task_priority_celery.py": "reference core intermediate success",
    "35_04_01_basic_pod_execution.py": "reference core beginner success",
    "35_04_02_pod_template.py": "reference core intermediate success",
    "35_04_03_executor_config_pod.py": "reference core intermediate success",
    "35_04_04_resource_requests_limits.py": "reference core intermediate success",
    "35_04_05_affinity_tolerations.py": "reference core advanced success",
    "35_04_06_sidecar_containers.py": "reference core advanced success",
    "35_04_07_volume_mounts.py": "reference core intermediate success",
    "35_04_08_pod_gc_cleanup.py": "reference core intermediate success",
    "35_04_09_debugging_failed_pods.py": "reference core intermediate failure",
    "35_05_01_any_executor_dag.py": "reference patterns beginner success",
    "35_05_02_conditional_executor_config.py": "reference patterns intermediate success",
    "35_05_03_testing_across_executors.py": "reference patterns intermediate success",
    "35_05_04_queue_abstraction.py": "reference patterns intermediate success",
    "35_05_05_resource_specification.py": "reference patterns intermediate success",
    "35_06_01_edge_executor_concepts.py": "reference core intermediate success",
    "35_06_02_edge_executor_config.py": "reference core intermediate success",
    "35_06_03_edge_tasks.py": "reference patterns intermediate success",
    "35_06_04_edge_worker_deployment.py": "reference patterns intermediate success",
    "35_06_05_task_isolation.py": "reference core intermediate success",
    "35_07_01_multi_executor_concepts.py": "reference core intermediate success",
    "35_07_02_configure_multi_executor.py": "reference core intermediate success",
    "35_07_03_task_executor_selection.py": "reference core intermediate success",
    "35_07_04_dag_executor_default.py": "reference core intermediate success",
    "35_07_05_multi_executor_use_cases.py": "reference patterns intermediate success",
    "35_08_01_debug_task_not_starting.py": "reference debugging intermediate failure",
    "35_08_02_debug_k8s_pod_failures.py": "reference debugging intermediate failure",
    "35_08_03_debug_celery_workers.py": "reference debugging intermediate failure",
    "35_08_04_executor_log_analysis.py": "reference debugging intermediate success",
    "35_08_05_common_pitfalls.py": "reference anti-patterns intermediate failure",
    "35_09_01_executor_scaling.py": "reference performance intermediate success",
    "35_09_02_task_slot_optimization.py": "reference performance intermediate success",
    "35_09_03_executor_latency.py": "reference performance intermediate success",
    "35_09_04_resource_monitoring.py": "reference performance intermediate success",
    "35_09_05_cost_optimization.py": "reference performance intermediate success",
    "35_10_01_ha_executor_setup.py": "reference patterns advanced success",
    "35_10_02_mixed_workloads.py": "reference patterns intermediate success",
    "35_10_03_multi_environment.py": "reference patterns intermediate success",
    "35_10_04_disaster_recovery.py": "reference patterns advanced success",
    "35_10_05_production_checklist.py": "reference best-practices intermediate success",
}
"""File name → tags, in the curriculum's order."""

TO_COME = {
    "35_09_04_resource_monitoring.py": "metrics, alerts and backups",
    "35_10_03_multi_environment.py": "the kubernetes lab",
    "35_10_05_production_checklist.py": "metrics, alerts and backups",
}
"""File name of a DAG that its section still lacks → what has to be built first."""

READS_A_VARIABLE_WHILE_PARSED = {"35_05_04_queue_abstraction.py"}
"""Its subject: a queue that depends on a Variable can only be chosen there."""

ALLOWED_IMPORTS = (
    "airflow.sdk",
    "airflow.configuration",
    "airflow.providers.celery",
    "airflow.providers.standard",
    "airflow.settings",
    "kubernetes.client",
    "kubernetes.config",
    "psutil",
)
"""Beside the standard library. psutil is a dependency of Airflow itself; 35.6.5 shows that settings refuse a task."""

HARMLESS_CALLS = {"logging.getLogger", "timedelta"}

INPUT_OUTPUT = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}


def root(node: ast.expr) -> str:
    """The name that a chain of calls, attributes and subscripts starts with; empty when there is none."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        else:
            return ""
    return node.id


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each import as (local name, where from)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.split(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, node.module or "") for alias in node.names)


def calls_while_parsed(tree: ast.Module) -> Iterator[ast.Call]:
    """What runs when Airflow imports the file: no task, but a helper that is called outside of tasks."""
    helpers = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.decorator_list}

    def visit(node: ast.AST) -> Iterator[ast.Call]:
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                yield from visit(decorator)
            if {root(each) for each in node.decorator_list} & {"dag", "task_group"}:
                for statement in node.body:
                    yield from visit(statement)
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            return
        if isinstance(node, ast.Call):
            yield node
            helper = helpers.pop(root(node.func), None)
            for statement in helper.body if helper else []:
                yield from visit(statement)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(tree)


def problems(name: str, source: str) -> list[str]:
    """Everything that is wrong with the DAG file called `name`; empty for a good one."""
    tree, found = ast.parse(source), []
    section, item = (int(part) for part in name.split("_")[1:3])
    documentation = ast.get_docstring(tree) or ""
    if not documentation.startswith(f"# 35.{section}.{item} "):
        found.append(f"the documentation does not start with '# 35.{section}.{item} '")
    if "**What to look for**" not in documentation:
        found.append("the documentation does not say what to look for")

    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    decorated = [(node, each) for node in functions for each in node.decorator_list]
    dags = [each for _, each in decorated if root(each) == "dag"]
    if len(dags) != 1 or not isinstance(dags[0], ast.Call):
        return [*found, f"{len(dags)} functions are a @dag(…)"]
    settings = {keyword.arg: ast.unparse(keyword.value) for keyword in dags[0].keywords}
    expected = {
        "dag_id": repr(name.removesuffix(".py")),
        "schedule": "None",
        "catchup": "False",
        "is_paused_upon_creation": "False",
        "tags": repr(CURRICULUM[name].split()),
        "doc_md": "__doc__",
    }
    for key, value in expected.items():
        if settings.get(key) != value:
            found.append(f"{key} is {settings.get(key)}, not {value}")

    for node, each in decorated:
        if root(each) == "task" and not ast.get_docstring(node):
            found.append(f"task {node.name} has no documentation")
    if not any(root(each) == "task" for _, each in decorated):
        found.append("no task")
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        operator = isinstance(call.func, ast.Name) and call.func.id.endswith(("Operator", "Sensor"))
        if operator and "doc_md" not in {keyword.arg for keyword in call.keywords}:
            found.append(f"{ast.unparse(call.func)} has no doc_md")

    imports = dict(imported(tree))
    for module in sorted(set(imports.values())):
        allowed = any(module == each or module.startswith(f"{each}.") for each in ALLOWED_IMPORTS)
        if not allowed and module.split(".")[0] not in sys.stdlib_module_names:
            found.append(f"imports {module}")
    for call in calls_while_parsed(tree):
        called, where = root(call.func), imports.get(root(call.func), "")
        text = ast.unparse(call.func)
        harmless = where.startswith(("airflow.", "kubernetes.")) or text in HARMLESS_CALLS
        if (where and not harmless) or called in INPUT_OUTPUT:
            found.append(f"calls {text} while it is parsed")
        if called == "Variable" and name not in READS_A_VARIABLE_WHILE_PARSED:
            found.append("reads a Variable while it is parsed")
    return found


def test_there_are_dags() -> None:
    assert len(CURRICULUM) == 53
    assert FILES
    assert set(dir(builtins)) >= INPUT_OUTPUT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_curriculum_names_the_file(path: Path) -> None:
    assert path.name in CURRICULUM
    assert re.fullmatch(rf"section_{path.name[:5]}_[a-z_]+", str(path.parent.relative_to(DAGS)))


@pytest.mark.parametrize("section", sorted({path.parent.name[8:13] for path in FILES}))
def test_a_section_is_complete_but_for_what_is_to_come(section: str) -> None:
    written = {path.name for path in FILES if path.name.startswith(section)}
    assert written == {name for name in CURRICULUM if name.startswith(section)} - set(TO_COME)


def test_what_is_to_come_is_in_the_curriculum() -> None:
    assert set(TO_COME) <= set(CURRICULUM)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_dag_is_as_the_curriculum_says(path: Path) -> None:
    assert problems(path.name, path.read_text()) == []


GOOD = '''"""# 35.1.2 A DAG

**What to look for**: nothing."""
import logging
from airflow.sdk import dag, task
from airflow.providers.standard.operators.bash import BashOperator
log = logging.getLogger("airflow.task")
def helper():
    return 1
@dag(dag_id="35_01_02_portable_dag", schedule=None, catchup=False, is_paused_upon_creation=False,
     tags=["reference", "core", "beginner", "success"], doc_md=__doc__)
def portable_dag():
    @task
    def work():
        """Documented."""
        print(open("a task may do input and output"))
    work()
    helper()
    BashOperator(task_id="show", bash_command="true", doc_md="Documented.")
portable_dag()
'''


def test_a_good_dag_has_no_problems() -> None:
    assert problems("35_01_02_portable_dag.py", GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("# 35.1.2 A", "# 35.1.3 A", "the documentation does not start with '# 35.1.2 '"),
        ("**What to look for**", "Look", "the documentation does not say what to look for"),
        ('"35_01_02_portable_dag"', '"portable"', "dag_id is 'portable', not '35_01_02_portable_dag'"),
        ("schedule=None", "schedule='@daily'", "schedule is '@daily', not None"),
        ("catchup=False, ", "", "catchup is None, not False"),
        ('"success"]', '"failure"]', "tags is ['reference', 'core', 'beginner', 'failure'], not"),
        (", doc_md=__doc__", "", "doc_md is None, not __doc__"),
        ('"""Documented."""', "", "task work has no documentation"),
        (', doc_md="Documented."', "", "BashOperator has no doc_md"),
        ("import logging", "import logging, requests", "imports requests"),
        ("import logging", "import logging\nfrom airflow.models import Variable", "imports airflow.models"),
        ("return 1", "return open('x')", "calls open while it is parsed"),
        ("import logging", "import logging, time\ntime.sleep(1)", "calls time.sleep while it is parsed"),
        (
            "import logging",
            "import logging\nfrom pathlib import Path\nPath('x').touch()",
            "calls Path('x').touch while",
        ),
        (
            "return 1",
            "from airflow.sdk import Variable\n    return Variable.get('x')",
            "reads a Variable while",
        ),
        ("    @task\n", "", "no task"),
    ],
)
def test_a_bad_dag_is_refused(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert any(problem.startswith(expected) for problem in problems("35_01_02_portable_dag.py", GOOD.replace(old, new)))
