"""The options that the seeds name: which the installed Airflow still has, and where.

Hint: `airflow config lint` says of an airflow.cfg what Airflow 3 has moved or removed.
"""

from scenarios.seeds import OPTIONS


def test_the_options_that_the_seeds_name(installed, evidence, claim):
    """An option holds when it is in the section in which the seed puts it."""
    rows = installed["options"]
    evidence("options", rows)
    assert [(row["section"], row["key"]) for row in rows] == [option[:2] for option in OPTIONS]
    for row, (section, key, source) in zip(rows, OPTIONS, strict=True):
        numbers = {"found in": row["found in"], "what Airflow says of it": row["what Airflow says of it"]}
        claim(f"[{section}] {key}", source, "holds" if section in row["found in"] else "outdated", numbers)


def test_sla_misses(installed, evidence, claim):
    """What an operator answers to `sla=`."""
    said = installed["sla"]
    evidence("an operator with sla=", said or "accepted without a word")
    verdict = "outdated" if said else "holds"
    claim("SLA misses: a time limit for a task that triggers a callback", "seed 003", verdict, {"sla=": said})
