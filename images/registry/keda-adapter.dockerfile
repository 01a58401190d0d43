# The official image.
FROM ghcr.io/kedacore/keda-metrics-apiserver:2.20.2
USER 50000:0
