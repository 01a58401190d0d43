# Airflow with the providers of every executor: Debian's Python and the packages of airflow.lock, nothing to build with.
ARG BASE
FROM ${BASE} AS builder
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3-venv >/dev/null
# What this network trusts matters while packages are fetched, and is left behind here.
COPY certificates.pem /build/
RUN cat /build/certificates.pem >>/etc/ssl/certs/ca-certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
COPY uv.lock airflow.lock /build/
RUN python3 -m venv /build/tools && \
    /build/tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /build/uv.lock
RUN python3 -m venv --without-pip /opt/venv && \
    env ${PIP_INDEX_URL:+UV_DEFAULT_INDEX=$PIP_INDEX_URL} /build/tools/bin/uv pip install --quiet --no-cache \
        --python /opt/venv/bin/python --require-hashes --compile-bytecode -r /build/airflow.lock && \
    /build/tools/bin/uv pip check --python /opt/venv/bin/python

FROM builder AS schema
RUN apt-get install -qq --no-install-recommends postgresql-common >/dev/null && \
    sed -i 's/^#create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && \
    apt-get install -qq --no-install-recommends postgresql-15 >/dev/null
COPY schema.sh /build/
USER 50000:0
RUN sh /build/schema.sh

FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3 tzdata >/dev/null && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=builder /opt/venv /opt/venv
COPY --from=schema /tmp/schema.sql /opt/schema.sql
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 HOME=/tmp AIRFLOW_LAB_SCHEMA=/opt/schema.sql
USER 50000:0
