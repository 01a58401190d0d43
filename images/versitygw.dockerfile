# Versity's S3 gateway, built from Go modules.
ARG BASE
FROM ${BASE}
COPY versitygw /usr/local/bin/
ENV PATH=/usr/local/bin:/usr/bin:/bin
USER 50000:0
