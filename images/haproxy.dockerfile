# HAProxy from Debian.
ARG BASE
FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq --no-install-recommends haproxy >/dev/null && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin
USER 50000:0
