# The official image, with the user of all services and the start of the other kind of image.
FROM postgres:15.12-bookworm
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /tmp airflow
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
USER 50000:0
