#!/bin/sh
# What `airflow db migrate` makes of an empty database, as /tmp/schema.sql that any driver can run.
set -eu

place=/tmp/schema
export PATH="/opt/venv/bin:/usr/lib/postgresql/15/bin:$PATH" PGHOST=$place AIRFLOW_HOME=$place/airflow
mkdir -p "$AIRFLOW_HOME"
initdb -D $place/data -U airflow --auth=trust --encoding=UTF8 --locale=C --no-sync >/dev/null
pg_ctl -D $place/data -w -l $place/log -o "-F -c listen_addresses= -k $place" start >/dev/null
createdb -U airflow airflow
AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://airflow@/airflow?host=$place" \
    airflow db migrate >$place/log 2>&1 || { cat $place/log >&2; exit 1; }
# without what only psql understands, and what would change a session
pg_dump -U airflow --inserts --no-owner --no-privileges airflow |
    grep -v -e '^\\' -e '^--' -e '^SET ' -e '^SELECT pg_catalog.set_config' -e '^$' >/tmp/schema.sql
pg_ctl -D $place/data -w -m immediate stop >/dev/null
rm -rf $place
