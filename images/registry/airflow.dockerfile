# Airflow's own image with the packages of airflow.lock, so that its providers are those of every other lab.
FROM apache/airflow:slim-3.3.2-python3.12
COPY airflow.lock /tmp/
RUN pip install --quiet --no-cache-dir --require-hashes -r /tmp/airflow.lock && pip check
ENV PYTHONUNBUFFERED=1
USER 50000:0
