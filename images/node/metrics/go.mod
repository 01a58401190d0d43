module airflow-executor-labs/node/metrics

go 1.24.0

tool sigs.k8s.io/metrics-server/cmd/metrics-server

require sigs.k8s.io/metrics-server v0.8.0
