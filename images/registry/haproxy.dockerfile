# The official image as it is.
FROM haproxy:2.8.14-bookworm
USER 50000:0
