"""# A task whose pod no node takes

Not part of the curriculum: its pod stays `Pending` until somebody gives it up.
"""

from airflow.sdk import Param, dag, task
from kubernetes.client import models as k8s

POD = k8s.V1Pod(
    spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], node_selector={"disk": "nobody-has-this-label"})
)


@dag(
    dag_id="probe_no_node",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["probe"],
    params={"folder": Param("", type="string", description="where an execution would leave a file")},
    doc_md=__doc__,
)
def one_task():
    @task(executor_config={"pod_override": POD})
    def work():
        """Never runs where tasks have pods."""

    work()


one_task()
