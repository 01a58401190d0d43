"""What the curriculum and its sources name that an Airflow may or may not have."""

CELERY_KUBERNETES = "airflow.providers.celery.executors.celery_kubernetes_executor.CeleryKubernetesExecutor"

EDGE_BY_PATH = "edge:airflow.providers.edge3.executors.EdgeExecutor"

EXECUTORS = (
    "SequentialExecutor",
    "CeleryKubernetesExecutor",
    CELERY_KUBERNETES,
    "LocalExecutor,CeleryExecutor",
    EDGE_BY_PATH,
)
"""Values of `[core] executor`."""

OPTIONS = (
    ("core", "executor", "seed 001"),
    ("core", "parallelism", "seed 003"),
    ("core", "dag_concurrency", "seed 003"),
    ("core", "max_active_runs_per_dag", "seed 003"),
    ("core", "max_active_tasks_per_dag", "seed 000"),
    ("celery", "broker_url", "seed 001"),
    ("celery", "result_backend", "seed 001"),
    ("celery", "worker_concurrency", "seed 001"),
    ("kubernetes_executor", "pod_template_file", "seed 000"),
    ("kubernetes_executor", "delete_worker_pods", "seed 000"),
    ("logging", "remote_logging", "seed 003"),
    ("logging", "remote_base_log_folder", "seed 003"),
    ("logging", "remote_log_conn_id", "seed 003"),
    ("logging", "encrypt_s3_logs", "seed 003"),
    ("scheduler", "min_file_process_interval", "seed 003"),
)
"""Options by section and key, and who names them; where a source names no section, that of its time."""
