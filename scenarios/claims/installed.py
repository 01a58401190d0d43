"""What the installed Airflow says of itself: run by the lab's own interpreter, in its scheduler's environment.

Reads from standard input, as JSON, values of `[core] executor` to try, and options as (section, key); writes what
it finds as the last line of its standard output.
"""

import dis
import inspect
import json
import os
import re
import sys
import warnings


def loaded(value):
    """What the scheduler would load for a value of `[core] executor`, and import for it, in a process of its own."""
    here, there = os.pipe()
    if os.fork() == 0:
        os.environ["AIRFLOW__CORE__EXECUTOR"] = value
        try:
            from airflow.configuration import conf
            from airflow.executors.executor_loader import ExecutorLoader

            conf.validate()  # what replaces outdated values
            found = {"loads": [type(executor).__qualname__ for executor in ExecutorLoader.init_executors()]}
            found["imports"] = sorted(
                name.rpartition(".")[2]
                for name in sys.modules
                if re.match(r"airflow\..*\.(?!base_)\w+_executor$", name)
            )
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        os.write(there, json.dumps(found).encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as answer:
        return json.loads(answer.read())


def contract():
    """The interface between scheduler and executor, on the class that is configured."""
    from airflow.executors.executor_loader import ExecutorLoader
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    executor = ExecutorLoader.init_executors()[0]
    cls = type(executor)
    methods = {name for name in dir(cls) if not name.startswith("__") and callable(getattr(cls, name))}

    def calls(function):
        found = (i.argval for i in dis.get_instructions(function) if i.opname in ("LOAD_METHOD", "LOAD_ATTR"))
        return [name for name in dict.fromkeys(found) if name in methods]

    return {
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "methods": sorted(methods),
        "queue_workload takes": list(inspect.signature(cls.queue_workload).parameters),
        "heartbeat calls": calls(cls.heartbeat),
        "the scheduler's loop calls": calls(SchedulerJobRunner._run_scheduler_loop),
        "has event_buffer": hasattr(executor, "event_buffer"),
    }


def options(wanted):
    """Where each option is, and what Airflow says became of it."""
    from airflow.cli.commands.config_command import CONFIGS_CHANGES
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    sections = conf.configuration_description
    rows = []
    for section, key in wanted:
        changes = [c for c in CONFIGS_CHANGES if (c.config.section, c.config.option) == (section, key)]
        rows.append(
            {
                "section": section,
                "key": key,
                "found in": sorted(name for name in sections if key in sections[name]["options"]),
                "what Airflow says of it": " ".join(change.message or "" for change in changes),
            }
        )
    return rows


def sla():
    """What an operator answers to `sla=`."""
    from datetime import timedelta

    from airflow.sdk import BaseOperator

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            BaseOperator(task_id="late", sla=timedelta(seconds=1))
        except TypeError as error:
            return str(error)
    return " ".join(str(warning.message) for warning in said if "SLA" in str(warning.message))


def main():
    wanted = json.load(sys.stdin)
    from airflow.configuration import conf

    found = {
        "default executor": conf.get_default_value("core", "executor"),
        "executors": {value: loaded(value) for value in wanted["executors"]},
        "contract": contract(),
        "options": options(wanted["options"]),
        "sla": sla(),
    }
    sys.stdout.write(f"\n{json.dumps(found)}\n")


main()
