"""# 35.1.5 Where executor settings come from

Airflow looks for an option in this order and takes the first it finds:

    environment   AIRFLOW__CORE__PARALLELISM=4          one variable per option: AIRFLOW__{SECTION}__{KEY}
    airflow.cfg   [core] parallelism = 4                $AIRFLOW_HOME/airflow.cfg, or $AIRFLOW_CONFIG
    default       32                                    built into Airflow and its providers ("provider-…")

An empty `AIRFLOW_HOME` gets an `airflow.cfg` that holds *every* default, so the source `airflow.cfg` alone
does not mean that somebody set the option: compare the value with the default.

**What to look for**: value, source and default of each option. All three sources are there: `parallelism` is
set in the environment, `load_examples` (no option of the executor's) in `airflow.cfg`, and nobody has set
`max_active_runs_per_dag`. Passwords and URLs with passwords read `< hidden >`. Set one option and run this again:

    ./lab up local --set core.parallelism=2

Inside a task use `airflow.sdk.conf`. `airflow.configuration.conf` still answers `get`, but its `as_dict`
fails there, as a task may not know the database.
"""

import logging
import os
from pathlib import Path

from airflow.sdk import conf, dag, task

log = logging.getLogger("airflow.task")

CORE = ["executor", "parallelism", "max_active_tasks_per_dag", "max_active_runs_per_dag", "load_examples"]
SECTIONS = {
    "CeleryExecutor": ("celery", ["worker_concurrency", "worker_prefetch_multiplier", "broker_url"]),
    "KubernetesExecutor": ("kubernetes_executor", ["namespace", "pod_template_file", "delete_worker_pods"]),
    "EdgeExecutor": ("edge", ["api_url", "heartbeat_interval", "job_poll_interval"]),
}
GONE = [
    ("core", "dag_concurrency"),
    ("celery", "stalled_task_timeout"),
    ("scheduler", "scheduler_zombie_task_threshold"),
    ("scheduler", "zombie_detection_interval"),
]


def describe(section, keys):
    """Log and return value, source and default of options; an unknown option has the source None."""
    known = conf.as_dict(display_source=True).get(section, {})
    options = {}
    for key in keys:
        value, source = known.get(key, (None, None))
        default = None if value == "< hidden >" else conf.get_default_value(section, key)
        log.info("[%s] %s = %s   (from: %s, default: %s)", section, key, value, source, default)
        options[key] = {"value": value, "source": source, "default": default}
    return options


@dag(
    dag_id="35_01_05_executor_config_overview",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "beginner", "success"],
    doc_md=__doc__,
)
def executor_config_overview():
    @task
    def core_options():
        """The options of `[core]` that every executor obeys, and the file they may come from."""
        home = os.environ.get("AIRFLOW_HOME", "~/airflow")
        file = Path(os.environ.get("AIRFLOW_CONFIG", f"{home}/airflow.cfg")).expanduser()
        log.info("Configuration file: %s (%s)", file, "present" if file.exists() else "missing")
        return {"file": str(file), "present": file.exists(), "options": describe("core", CORE)}

    @task
    def environment():
        """The environment variables that override the file: names only, as values may be secrets."""
        names = sorted(name for name in os.environ if name.startswith("AIRFLOW__") and name.count("__") >= 2)
        for name in names:
            _, section, key = name.split("__", 2)
            log.info("%s overrides [%s] %s", name, section.lower(), key.lower())
        log.info("%s options come from the environment.", len(names))
        return {"names": names}

    @task
    def executor_sections():
        """Each executor's own section; without its provider, a section has no options."""
        log.info("LocalExecutor has no section of its own: [core] parallelism is all it needs.")
        return {executor: describe(section, keys) for executor, (section, keys) in SECTIONS.items()}

    @task
    def validate(core, environment, sections):
        """Checks the configuration as this worker sees it."""
        gone = [(section, key) for section, key in GONE if conf.has_option(section, key)]
        problems = [f"[{section}] {key} does nothing in Airflow 3" for section, key in gone]
        executors = conf.get("core", "executor")
        if not executors:
            problems.append("[core] executor is empty")
        if conf.getint("core", "parallelism") < 1:
            problems.append("[core] parallelism must be at least 1")
        for executor, (section, _) in SECTIONS.items():
            if executor in executors and not any(option["source"] for option in sections[executor].values()):
                problems.append(f"{executor} is configured, but [{section}] has no options: no provider?")
        for problem in problems:
            log.warning("Problem: %s", problem)
        log.info("executor = %s, problems found: %s", executors, len(problems))
        return {"executor": executors, "valid": not problems, "problems": problems}

    core, variables, sections = core_options(), environment(), executor_sections()
    core >> variables >> sections
    validate(core, variables, sections)


executor_config_overview()
