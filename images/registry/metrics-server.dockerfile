# The official image, as k3s copies it.
FROM rancher/mirrored-metrics-server:v0.7.2
USER 50000:0
