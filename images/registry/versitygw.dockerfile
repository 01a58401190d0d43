# The official image as it is.
FROM versity/versitygw:v1.7.0
USER 50000:0
