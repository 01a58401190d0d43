# metrics-server, built from Go modules.
ARG BASE
FROM ${BASE}
COPY metrics-server /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/metrics-server"]
USER 50000:0
