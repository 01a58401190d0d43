# The official image as it is.
FROM redis:7.2.7-bookworm
USER 50000:0
