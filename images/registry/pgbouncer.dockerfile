# The image of Airflow's own chart, with the shell that probes need.
FROM apache/airflow:airflow-pgbouncer-2025.03.05-1.23.1
USER root
RUN apk add --no-cache bash
USER 50000:0
