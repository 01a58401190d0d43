# KEDA's metrics adapter, built from Go modules.
ARG BASE
FROM ${BASE}
COPY keda-adapter /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/keda-adapter"]
USER 50000:0
