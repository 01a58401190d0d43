"""Executor labs for Apache Airflow: the command line, the engines, the API access and the report."""
