# KEDA's operator, built from Go modules.
ARG BASE
FROM ${BASE}
COPY keda /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/keda"]
USER 50000:0
