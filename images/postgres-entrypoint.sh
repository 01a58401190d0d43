#!/bin/sh
# As in the official image: a PGDATA that is empty becomes a server with the database POSTGRES_DB of POSTGRES_USER.
# Unlike there, POSTGRES_PASSWORD is in force at every start.
set -eu

if [ ! -e "$PGDATA/PG_VERSION" ]; then
    fresh=$PGDATA.new # whole or not at all
    rm -rf "$fresh"
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D "$fresh" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync
    rm /tmp/password
    echo "CREATE DATABASE \"$POSTGRES_DB\" OWNER \"$POSTGRES_USER\"" |
        postgres --single -j -F -D "$fresh" postgres >/dev/null
    echo "host all all all scram-sha-256" >>"$fresh/pg_hba.conf"
    printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\n" >>"$fresh/postgresql.conf"
    mv "$fresh" "$PGDATA"
else # the password may be another than before
    echo "ALTER ROLE \"$POSTGRES_USER\" PASSWORD '$POSTGRES_PASSWORD'" |
        postgres --single -c log_min_error_statement=panic -D "$PGDATA" postgres >/dev/null
fi
unset POSTGRES_PASSWORD
exec "$@" -D "$PGDATA"
