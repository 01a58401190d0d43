"""Executors that the seeds name and the installed Airflow may no longer have.

Hint: what `[core] executor` may be is in https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/executor/
"""

from scenarios.seeds import CELERY_KUBERNETES


def test_sequential_executor(installed, evidence, claim):
    """What the name SequentialExecutor loads, and what is loaded by default."""
    loads = installed["executors"]["SequentialExecutor"]
    default = installed["default executor"]
    evidence("[core] executor = SequentialExecutor", loads)
    evidence("[core] executor by default", default)
    there = loads.get("loads") == ["SequentialExecutor"]
    numbers = {"SequentialExecutor loads": loads.get("loads", loads.get("error")), "default": default}
    by_default = "holds" if there and default == "SequentialExecutor" else "outdated"
    claim(
        "SequentialExecutor – runs one task at a time (default for local development)", "seed 001", by_default, numbers
    )
    verdict = "holds" if there else "outdated"
    claim("SequentialExecutor runs one task after another in the same process", "seed 003", verdict, numbers)
    claim("SequentialExecutor: 1 task at a time", "seed 000", verdict, numbers)


def test_celery_kubernetes_executor(installed, evidence, claim):
    """What the name CeleryKubernetesExecutor loads, and its full path; a list of executors instead."""
    names = ("CeleryKubernetesExecutor", CELERY_KUBERNETES)
    answers = {name: installed["executors"][name] for name in names}
    evidence("[core] executor", [{"value": name, **answer} for name, answer in answers.items()])
    verdict = "holds" if any("loads" in answer for answer in answers.values()) else "outdated"
    numbers = {name: answer.get("loads", answer.get("error")) for name, answer in answers.items()}
    claim("CeleryKubernetesExecutor – hybrid model", "seed 001", verdict, numbers)
    claim("CeleryKubernetesExecutor for hybrid workloads", "seed 002", verdict, numbers)

    listed = installed["executors"]["LocalExecutor,CeleryExecutor"]
    several = "holds" if listed.get("loads") == ["LocalExecutor", "CeleryExecutor"] else "wrong"
    claim("Hybrid executors available", "seed 000", several, {"LocalExecutor,CeleryExecutor": listed})
