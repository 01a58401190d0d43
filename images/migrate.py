"""Bring the metadata database to the schema of this Airflow.

Importing Airflow to find that nothing is to do takes seconds, so a database that was migrated remembers by which
set of packages, in its own comment, and is left alone when they are the same. An image may bring what Airflow's own
migration makes of an empty database, as statements: that takes a tenth of the time. Runs inside the Airflow environment
or image of every platform.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg2

COMMENT = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"

TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"

CHANGES = (
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT",
    "AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_SCHEMA",
)
"""Options with which Airflow's own migration makes something else of an empty database."""

PATIENCE = 10.0
"""Seconds for which the database may refuse: the Service of a cluster leads to a pod a moment after that is ready."""


def connected(url: str) -> psycopg2.extensions.connection:
    """A connection. Raises OperationalError when there is none within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return psycopg2.connect(url)
        except psycopg2.OperationalError as error:
            if "Connection refused" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def laid_down(cursor: psycopg2.extensions.cursor) -> bool:
    """Whether the database was empty, and is as the statements say that this image brings."""
    file = os.environ.get("AIRFLOW_LAB_SCHEMA")
    if not file or any(option in os.environ for option in CHANGES):
        return False
    cursor.execute(TABLES)
    if cursor.fetchone() != (0,):
        return False
    cursor.execute(Path(file).read_text())
    return True


def main() -> None:
    """Migrate when needed. Raises CalledProcessError when Airflow's own migration fails."""
    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2://", "postgresql://")
    wanted = f"migrated by airflow-executor-labs {os.environ['AIRFLOW_LAB_FINGERPRINT']}"
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(COMMENT)
        row = cursor.fetchone()
        if row == (wanted,):
            print("The metadata database is at the schema of this Airflow already.", flush=True)
            return
        made = laid_down(cursor)
    if made:
        print("The metadata database is as Airflow's own migration leaves an empty one.", flush=True)
    else:
        subprocess.run(["airflow", "db", "migrate"], check=True)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_database(), pg_get_userbyid(datdba) = current_user FROM pg_database"
            " WHERE datname = current_database()"
        )
        name, owned = cursor.fetchone()
        if owned:  # on a server of somebody else's the comment stays as it is, and the next run looks again
            cursor.execute(f'COMMENT ON DATABASE "{name}" IS %s', (wanted,))


if __name__ == "__main__":
    try:
        main()
    except psycopg2.OperationalError as error:
        sys.exit(f"The metadata database cannot be used: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # Airflow has said why
