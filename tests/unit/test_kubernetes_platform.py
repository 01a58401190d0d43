"""What the kubernetes platform asks of a cluster for a whole lab, with a provider that makes nothing."""

from __future__ import annotations

import base64
import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.airflow import variable
from components.log_store import OPTIONS
from components.platforms.kubernetes import resources
from components.platforms.kubernetes.names import SERVICE
from components.platforms.kubernetes.platform import CLUSTER_WIDE, REACHES, READINESS
from components.platforms.kubernetes.pods import NOTED, SECRETS, UP, entry, probes
from components.secrets import NAMES
from labs.cluster import OWNER
from labs.engines.base import PROJECT
from labs.engines.kubernetes import ObjectProvider
from labs.engines.values import Values, plain_outputs
from labs.errors import LabError
from labs.processes import SERVICE_MARK
from stacks.configuration import unknown_field
from tests.unit.pretending import Pretender, outputs_of

KUBECONFIG = yaml.safe_dump(
    {
        "current-context": "kind-t",
        "contexts": [{"name": "kind-t", "context": {"cluster": "kind-t", "user": "kind-t"}}],
        "clusters": [{"name": "kind-t", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "kind-t", "user": {"token": "hidden-token"}}],
    }
)


class Objects(Pretender):
    """A cluster that is pretended."""

    def given(self, name: str, news: Values) -> dict[str, Values]:
        return {
            "LabSecrets": {each: f"hidden-{each}" for each in NAMES},
            "KindCluster": {"kubeconfig": KUBECONFIG, "nodes": ["t-control-plane", "t-worker", "t-worker2"]},
            "ContextCluster": {"kubeconfig": KUBECONFIG, "nodes": []},
            "NodeImage": {"reference": f"airflow-executor-labs/{news.get('image')}:abc"},
            "PublishedPort": {"number": 30007, "address": "127.0.0.1:30007"},
            "HostFolder": {"path": news.get("path")},
            "ServicePod": {"pod": f"airflow-{name}-pod", "uid": "1"},
        }

    def objects(self, *kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and manifest of the objects of some kinds, or of all."""
        for (kind, _), inputs in self.made.items():
            if "metadata" in inputs and (kind in kinds or not kinds):
                yield inputs["metadata"]["name"], plain_outputs(inputs)

    def pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and pod, of every workload and of every template of tasks."""
        for name, each in self.objects("Deployment", "StatefulSet", "Job"):
            pod = each["spec"]["template"]
            own = [{"name": claim["metadata"]["name"]} for claim in each["spec"].get("volumeClaimTemplates", ())]
            pod["spec"]["volumes"] += own  # as those of each of its pods
            yield name, pod
        for _, each in self.objects("ConfigMap"):
            for file, text in each["data"].items():
                if file.endswith(".yaml"):
                    yield file, yaml.safe_load(text)


SITES = ("site-a", "site-b")


@dataclass
class Declared:
    """A lab as its program declares it."""

    pretender: Objects
    outputs: dict[str, Any]


def declare(lab: str, folder: Path, *extras: str, cluster: str = "kind", **shape: Any) -> Declared:
    pretender = Objects()
    more = {"cluster": cluster, **{key: json.dumps(value) for key, value in shape.items()}}
    return Declared(pretender, outputs_of(lab, "kubernetes", pretender, folder, extras, **more))


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The lab of the KubernetesExecutor."""
    return declare("kubernetes", tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The lab with two sites."""
    return declare("edge", tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The lab with two of everything."""
    return declare("ha", tmp_path_factory.mktemp("engine"))


@pytest.fixture(
    scope="module",
    params=[("kubernetes",), ("kubernetes", "log-store"), ("local",), ("celery",), ("edge",), ("multi",), ("ha",)],
)
def any_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """Each lab of the platform, and one with a service of an extra."""
    lab, *extras = request.param
    return declare(lab, tmp_path_factory.mktemp("engine"), *extras)


def test_names_labels_and_ports_are_those_of_the_chart(declared: Declared) -> None:
    workloads = {name for name, _ in declared.pretender.objects("Deployment", "StatefulSet", "Job")}
    assert workloads == {
        "airflow-api-server",
        "airflow-scheduler",
        "airflow-dag-processor",
        "airflow-triggerer",
        "airflow-postgresql",
        "airflow-run-airflow-migrations",
    }
    assert [name for name, _ in declared.pretender.objects("StatefulSet")] == ["airflow-postgresql"]
    services = dict(declared.pretender.objects("Service"))
    assert set(services) == {"airflow-api-server", "airflow-postgresql"}
    assert services["airflow-api-server"]["spec"]["type"] == "NodePort"
    assert services["airflow-api-server"]["spec"]["ports"] == [{"name": "api-server", "port": 8080, "nodePort": 30007}]
    assert services["airflow-postgresql"]["spec"]["type"] == "ClusterIP"
    pods = dict(declared.pretender.pods())
    labels = pods["airflow-scheduler"]["metadata"]["labels"]
    assert labels == {
        "tier": "airflow",
        "release": "kubernetes-declared",
        "component": "scheduler",
        SERVICE: "scheduler",
        **REACHES,
    }
    assert pods["default.yaml"]["metadata"]["labels"]["component"] == "worker"
    assert declared.outputs["api_url"] == "http://127.0.0.1:30007"
    assert declared.outputs["internal_api_url"] == "http://airflow-api-server:8080"


def test_every_object_is_found_again_and_in_the_namespace(any_lab: Declared) -> None:
    lab = any_lab.outputs["name"]
    for (kind, name), inputs in any_lab.pretender.made.items():
        if "metadata" not in inputs:
            continue
        ObjectProvider().check(f"urn:pulumi:t::{PROJECT}::kubernetes:x:{kind}::{name}", {}, inputs)
        assert inputs["metadata"]["labels"][OWNER].endswith(f".{lab}")
        if kind not in ("Namespace", *CLUSTER_WIDE):
            own, site = f"airflow-{lab}", inputs["metadata"]["namespace"].removeprefix(f"airflow-{lab}-")
            assert inputs["metadata"]["namespace"] in (own, *(f"{own}-{each}" for each in SITES)), name
            assert (site in SITES) == name.startswith(SITES), "a site has another's object"


def test_kubernetes_takes_nothing_out_of_a_command(any_lab: Declared) -> None:
    for name, pod in any_lab.pretender.pods():
        for container in pod["spec"]["containers"]:
            said = [*container.get("command", ()), *container.get("args", ())]
            said += [
                each
                for probe in ("liveness", "readiness", "startup")
                for each in container.get(f"{probe}Probe", {}).get("exec", {}).get("command", ())
            ]
            # of two dollars it leaves one, and what stands in $(…) is a variable of its own
            assert not [each for each in said if "$$" in each], name


def test_every_pod_meets_the_restricted_standard_and_more(any_lab: Declared) -> None:
    (_, namespace) = next(any_lab.pretender.objects("Namespace"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = list(any_lab.pretender.pods())
    assert len(pods) >= 6
    for name, pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} == set(container["resources"]["requests"]) == set(container["resources"]["limits"])
            assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in spec["volumes"]}
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}, name


def test_only_who_makes_or_reads_pods_may_and_has_a_token(declared: Declared) -> None:
    roles = dict(declared.pretender.objects("Role"))
    assert set(roles) == {"airflow-scheduler", "airflow-api-server", "airflow-pod-reader"}
    verbs = {verb for rule in roles["airflow-api-server"]["rules"] for verb in rule["verbs"]}
    assert not verbs & {"create", "delete", "patch", "update"}
    for name, pod in declared.pretender.pods():
        assert pod["spec"]["automountServiceAccountToken"] == (name in roles)
        assert pod["spec"]["serviceAccountName"] != "default"


def test_no_secret_is_where_describe_shows_it(any_lab: Declared) -> None:
    shown = json.dumps(
        [each for kind in ("ConfigMap", "Deployment", "StatefulSet", "Job") for each in any_lab.pretender.objects(kind)]
    )
    for name in NAMES:
        assert f"hidden-{name}" not in shown
    secrets = dict(any_lab.pretender.objects("Secret"))
    text = base64.b64decode(secrets["airflow-run-airflow-migrations-env"]["data"]["secrets"]).decode()
    assert "hidden-database_password" in text and "hidden-jwt_secret" in text


def test_a_task_has_what_it_needs_and_no_secret(declared: Declared) -> None:
    template = dict(declared.pretender.pods())["default.yaml"]
    assert unknown_field(template) == ""
    (base,) = template["spec"]["containers"]
    assert base["name"] == "base" and "command" not in base
    settings = {each["name"]: each["value"] for each in base["env"]}
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow-api-server:8080/execution/"
    assert settings["AIRFLOW__CORE__EXECUTOR"] == "KubernetesExecutor"
    assert not [key for key in settings if "SECRET" in key or "CONN" in key or "FERNET" in key]
    mounts = {each["mountPath"] for each in base["volumeMounts"]}
    assert {"/lab/airflow", "/lab/airflow/airflow.cfg", "/lab/dags/section_35_01_concepts"} <= mounts
    assert declared.outputs["paths"]["exchange"] in mounts  # under the same path as on this machine


def test_the_scheduler_finds_its_templates(declared: Declared) -> None:
    (scheduler,) = dict(declared.pretender.pods())["airflow-scheduler"]["spec"]["containers"]
    settings = {each["name"]: each["value"] for each in scheduler["env"]}
    assert settings["AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"] == "/lab/pod-templates/default.yaml"
    assert settings["AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE"] == "airflow-kubernetes-declared"
    assert settings["AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY"] == "airflow-executor-labs/airflow"
    assert settings["AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG"] == "abc"
    assert "/lab/pod-templates" in {each["mountPath"] for each in scheduler["volumeMounts"]}


def test_dags_come_by_config_maps_that_airflow_can_walk(declared: Declared) -> None:
    maps = {name: each["data"] for name, each in declared.pretender.objects("ConfigMap")}
    concepts = maps["airflow-dags-section-35-01-concepts"]
    assert "35_01_02_portable_dag.py" in concepts
    assert concepts[".airflowignore"] == "..*\n"


def test_what_airflow_writes_to_is_a_copy(declared: Declared) -> None:
    (server,) = dict(declared.pretender.pods())["airflow-api-server"]["spec"]["containers"]
    assert (
        "install -m 600 /run/lab-files/passwords-json/passwords.json /lab/passwords/passwords.json"
        in server["command"][2]
    )
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in server["volumeMounts"]}
    assert mounts["/lab/passwords"] is False and mounts["/run/lab-files/passwords-json"] is True


def chosen(selector: dict[str, Any], pods: dict[str, Any]) -> set[str]:
    """The names of the pods that a selector chooses. A task's pod has the executor's label, too."""
    found = set()
    for name, pod in pods.items():
        labels = {**pod["metadata"]["labels"], **({"kubernetes_executor": "True"} if name.endswith(".yaml") else {})}
        asked = selector.get("matchExpressions", ())
        meets = [each["key"] in labels and labels[each["key"]] in each.get("values", labels.values()) for each in asked]
        if selector.get("matchLabels", {}).items() <= labels.items() and all(meets):
            found.add(name)
    return found


def test_nothing_goes_in_or_out_but_what_is_said(declared: Declared) -> None:
    policies = {name: each["spec"] for name, each in declared.pretender.objects("NetworkPolicy")}
    assert policies["airflow-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["airflow-postgresql"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 5432}]
    assert "from" not in policies["airflow-api-server"]["ingress"][0]
    assert policies["airflow-kubernetes-api"]["podSelector"] == {"matchLabels": {"reaches": "kubernetes-api"}}
    asking = {name for name, pod in declared.pretender.pods() if "reaches" in pod["metadata"]["labels"]}
    assert asking == {"airflow-scheduler", "airflow-api-server"}


LET_IN = {
    ("kubernetes", "airflow-postgresql"): {
        "api-server",
        "dag-processor",
        "run-airflow-migrations",
        "scheduler",
        "triggerer",
    },
    ("kubernetes", "airflow-log-store"): {"api-server", "scheduler", "triggerer", "worker"},
    ("celery", "airflow-postgresql"): {
        *("api-server", "dag-processor", "run-airflow-migrations", "scheduler", "triggerer", "worker"),
    },
    ("celery", "airflow-redis"): {"scheduler", "worker"},
    ("ha", "airflow-postgresql"): {"pgbouncer", "run-airflow-migrations"},
    ("ha", "airflow-pgbouncer"): {"api-server", "dag-processor", "scheduler", "triggerer", "worker"},
}
"""Lab and service → components that get in."""


def test_a_service_lets_in_who_uses_it(any_lab: Declared) -> None:
    pods, seen = dict(any_lab.pretender.pods()), 0
    for name, policy in any_lab.pretender.objects("NetworkPolicy"):
        wanted = LET_IN.get((any_lab.outputs["lab"], name))
        if wanted is None or "Ingress" not in policy["spec"]["policyTypes"]:
            continue
        (rule,) = policy["spec"]["ingress"]
        found = {each for peer in rule["from"] for each in chosen(peer["podSelector"], pods)}
        assert {pods[each]["metadata"]["labels"]["component"] for each in found} == wanted, name
        assert ("default.yaml" in found) == (name == "airflow-log-store"), name
        seen += 1
    assert seen == sum(lab == any_lab.outputs["lab"] and name in pods for lab, name in LET_IN)


def test_a_task_reaches_the_api_server_and_the_store_of_its_log(any_lab: Declared) -> None:
    policies = {name: each["spec"] for name, each in any_lab.pretender.objects("NetworkPolicy")}
    if "KubernetesExecutor" not in any_lab.outputs["executors"]:
        assert "airflow-tasks" not in policies
        return
    pods = dict(any_lab.pretender.pods())
    assert chosen(policies["airflow-tasks"]["podSelector"], pods) == {"default.yaml", "small.yaml"}
    assert not chosen(policies["airflow-inside"]["podSelector"], pods) & {"default.yaml", "small.yaml"}
    found = {
        (name, rule["ports"][0]["port"])
        for rule in policies["airflow-tasks"]["egress"]
        for name in chosen(rule["to"][0]["podSelector"], pods)
    }
    store = {("airflow-log-store", 7070)} if "log-store" in any_lab.outputs["services"] else set()
    assert found == {("airflow-api-server", 8080)} | store


def test_a_database_of_the_users_is_reached_wherever_it_is(tmp_path: Path) -> None:
    pretender, url = Objects(), "postgresql://airflow:hidden@db.example:6000/airflow"
    outputs_of("celery", "kubernetes", pretender, tmp_path, cluster="kind", database_url=url)
    policies = {name: each["spec"] for name, each in pretender.objects("NetworkPolicy")}
    assert "airflow-postgresql" not in policies
    assert policies["airflow-database"]["egress"] == [{"ports": [{"protocol": "TCP", "port": 6000}]}]
    assert "airflow-default-1" in chosen(policies["airflow-database"]["podSelector"], dict(pretender.pods()))


def test_services_are_told_where_testinfra_finds_them(declared: Declared) -> None:
    (fact,) = declared.outputs["services"]["scheduler"]
    assert fact["host"].startswith(
        "kubectl://airflow-scheduler-ready-pod?namespace=airflow-kubernetes-declared&container=scheduler"
    )
    assert fact["host"].endswith("/kubeconfig")
    assert fact["log"] == "deployment/airflow-scheduler"


def test_each_probe_has_its_action() -> None:
    blank: dict[str, Any] = {"http": "", "healthy": [], "tcp": "", "log": "", "file": "", "timeout": 300.0}
    assert probes(blank) == {}
    log = probes({**blank, "log": "ready"})
    assert log["startupProbe"]["tcpSocket"] == {"port": UP} and f"UP = {UP}" in READINESS.read_text()
    assert log["startupProbe"]["failureThreshold"] * log["startupProbe"]["periodSeconds"] == 300
    assert "stands still" in log["livenessProbe"]["exec"]["command"][-1]
    assert log["livenessProbe"]["periodSeconds"] * log["livenessProbe"]["failureThreshold"] >= 180
    assert probes({**blank, "tcp": "broker:6379"})["readinessProbe"]["tcpSocket"] == {"port": 6379}
    http = probes({**blank, "http": "http://api:8080/health"})
    assert http["startupProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert http["startupProbe"]["failureThreshold"] * http["startupProbe"]["periodSeconds"] == 300
    assert http["livenessProbe"]["periodSeconds"] * http["livenessProbe"]["failureThreshold"] >= 180
    file = probes({**blank, "file": "/lab/x"})
    assert file["startupProbe"]["exec"] == file["readinessProbe"]["exec"] == {"command": ["test", "-e", "/lab/x"]}
    assert file["livenessProbe"] == log["livenessProbe"] and "readinessProbe" not in log


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_process_that_stands_still_is_not_alive(tmp_path: Path) -> None:
    blank: dict[str, Any] = {"http": "", "healthy": [], "tcp": "", "log": "ready", "file": "", "timeout": 300.0}
    command = [each.replace("/tmp/", f"{tmp_path}/") for each in probes(blank)["livenessProbe"]["exec"]["command"]]
    busy = ["/bin/sh", "-c", entry({}).replace(f". {SECRETS}; ", "").replace("/tmp/", f"{tmp_path}/"), "sh", "yes"]
    with subprocess.Popen(busy, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"y\n"
        assert subprocess.run(command, check=False).returncode == 0
        process.stdout.read(2**20)  # it ran since
        assert subprocess.run(command, check=False).returncode == 0
        process.send_signal(signal.SIGSTOP)
        assert [subprocess.run(command, check=False).returncode for _ in range(2)][-1] == 1
        process.kill()


def test_a_shell_copies_before_the_command_takes_its_place() -> None:
    assert entry({"/a": "/b c"}) == f". /run/lab/secrets; install -m 600 /a '/b c'; {NOTED}; exec \"$@\""


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        ("airflow-site-b-0", "site-b: airflow -H site-b --pid /lab/site-b-home/x two words"),
        ("airflow-site-b-12", "site-b-12: airflow -H site-b-12 --pid /lab/site-b-home/x two words"),
    ],
)
def test_a_pod_beyond_the_first_has_a_name_of_its_own(pod: str, said: str) -> None:
    shell = (
        entry({}, numbered=True)
        .replace(f". {SECRETS}; ", "")
        .replace(f"{NOTED}; ", "")
        .replace('exec "$@"', f'echo "${SERVICE_MARK}:" "$@"')
    )
    command = ["airflow", "-H", "site-b", "--pid", "/lab/site-b-home/x", "two words"]
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "site-b", *command],
        env={"HOSTNAME": pod, SERVICE_MARK: "site-b"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{said}\n"


def test_each_pod_of_a_site_has_a_claim_of_its_own(edge: Declared) -> None:
    workload = in_namespace(edge, "StatefulSet", "airflow-edge-declared-site-b")["airflow-site-b"]["spec"]
    (claim,) = workload["volumeClaimTemplates"]
    (container,) = workload["template"]["spec"]["containers"]
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]}[claim["metadata"]["name"]] == (
        "/lab/site-b-home"
    )
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    lab = in_namespace(edge, "StatefulSet", "airflow-edge-declared")
    assert not [name for name, each in lab.items() if "volumeClaimTemplates" in each["spec"]]


def test_services_share_a_folder_of_logs_and_a_task_has_its_own(declared: Declared) -> None:
    sources = {}
    for name, pod in declared.pretender.pods():
        (base,) = pod["spec"]["containers"]
        mount = next((each["name"] for each in base["volumeMounts"] if each["mountPath"] == "/lab/airflow"), "")
        sources[name] = next((each for each in pod["spec"]["volumes"] if each["name"] == mount), {})
    assert sources["airflow-scheduler"]["persistentVolumeClaim"] == {"claimName": "airflow-airflow"}
    assert sources["airflow-scheduler"] == sources["airflow-api-server"]
    assert sources["default.yaml"]["emptyDir"] == {}
    assert declared.outputs["paths"]["logs"].endswith("/kubernetes-declared/run/airflow/logs")


def test_what_keeps_something_is_a_stateful_set(any_lab: Declared) -> None:
    keeping = {name for name, _ in any_lab.pretender.objects("StatefulSet")}
    optional, there = {"broker": "airflow-redis", "log-store": "airflow-log-store"}, any_lab.outputs["services"]
    sites = {f"airflow-{site['name']}" for site in there.get("edge-worker", ())}
    assert keeping == {"airflow-postgresql"} | {name for role, name in optional.items() if role in there} | sites


def test_a_log_store_is_known_to_who_reads_logs_and_to_tasks_by_name_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    lab = declare("kubernetes", tmp_path_factory.mktemp("engine"), "log-store")
    pods, secrets = dict(lab.pretender.pods()), dict(lab.pretender.objects("Secret"))
    (store,) = pods["airflow-log-store"]["spec"]["containers"]
    assert store["args"][3:] == ["/lab/log-store-data", "0.0.0.0:7070"]
    assert store["image"] == "airflow-executor-labs/versitygw:abc"
    holding = {
        name
        for name, each in secrets.items()
        if any("hidden-log_store_password" in base64.b64decode(text).decode() for text in each["data"].values())
    }
    assert holding == {"airflow-log-store-env", "airflow-api-server-env", "airflow-triggerer-env"}
    (base,) = pods["default.yaml"]["spec"]["containers"]
    told = {each["name"]: each["value"] for each in base["env"] if "LOGGING" in each["name"]}
    assert told == {variable(option): value for option, value in OPTIONS.items()}
    assert OPTIONS.items() <= lab.outputs["options"].items()
    text = base64.b64decode(secrets["airflow-api-server-env"]["data"]["secrets"]).decode()
    (line,) = [each for each in text.splitlines() if "AIRFLOW_CONN_" in each]
    (assigned,) = [each for each in shlex.split(line) if "=" in each]
    key, _, value = assigned.partition("=")
    assert key == f"AIRFLOW_CONN_{OPTIONS['logging.remote_log_conn_id'].upper()}"
    assert json.loads(value) == {
        "conn_type": "aws",
        "login": "airflow",
        "password": "hidden-log_store_password",
        "extra": {
            "endpoint_url": "http://airflow-log-store:7070",
            "region_name": "us-east-1",
            "config_kwargs": {"s3": {"addressing_style": "path"}, "connect_timeout": 5},
        },
    }


@pytest.fixture(scope="module", params=["kubernetes", "local", "celery", "edge", "multi"])
def abroad(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """Each lab in a cluster of the user's that has metrics-server."""
    folder = tmp_path_factory.mktemp("engine")
    return declare(request.param, folder, "metrics-server", cluster="context:theirs")


def test_in_a_cluster_of_the_users_there_is_nothing_but_a_namespace(abroad: Declared) -> None:
    made = abroad.pretender.made
    objects = {kind: each["metadata"] for (kind, _), each in made.items() if "metadata" in each}
    assert {kind for kind, metadata in objects.items() if "namespace" not in metadata} == {"Namespace"}
    assert made["ContextCluster", "cluster"]["measured"] is True
    assert not [name for kind, name in made if kind == "MetricsServer"]
    assert abroad.outputs["cluster"]["kind"] == "context"


def test_in_a_cluster_of_the_users_no_pod_sees_this_machine(abroad: Declared) -> None:
    claims = {name: each["spec"] for name, each in abroad.pretender.objects("PersistentVolumeClaim")}
    assert claims and {mode for each in claims.values() for mode in each["accessModes"]} == {"ReadWriteOnce"}
    assert not [name for name, each in claims.items() if "storageClassName" in each]
    kept = {f"airflow-{site['name']}-home" for site in abroad.outputs["services"].get("edge-worker", ())}
    for name, pod in abroad.pretender.pods():
        claimed = {
            each["persistentVolumeClaim"]["claimName"]
            for each in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in each
        }
        assert claimed <= {"airflow-metadata-database-data", "airflow-broker-data", *kept}, name
    paths = abroad.outputs["paths"]
    assert (paths["dags"], paths["logs"]) == ("", "")


def test_a_kind_cluster_gets_the_add_on_that_is_asked_for(tmp_path: Path) -> None:
    lab = declare("kubernetes", tmp_path, "metrics-server")
    assert lab.pretender.made["NodeImage", "metrics-server-image"]["image"] == "metrics-server"
    made = lab.pretender.made["MetricsServer", "metrics-server"]
    assert made["image"] == "airflow-executor-labs/metrics-server:abc"
    assert lab.outputs["extras"] == ["metrics-server"] and lab.outputs["cluster"]["kind"] == "kind"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The lab of the CeleryExecutor with autoscalers."""
    bounds = {"compute": {"most": 3, "cpu": 300}, "api-server": {"least": 2, "most": 2}}
    shape = {"autoscaling": bounds, "workers": {"compute": {"longest": 240}}}
    return declare("celery", tmp_path_factory.mktemp("engine"), "metrics-server", **shape)


def test_an_autoscaler_keeps_workers_by_their_cpu(scaled: Declared) -> None:
    scalers = {name: each["spec"] for name, each in scaled.pretender.objects("HorizontalPodAutoscaler")}
    assert set(scalers) == {"airflow-compute", "airflow-api-server"}
    spec = scalers["airflow-compute"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "airflow-compute"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 3)
    (metric,) = spec["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "300m"}}
    assert (scalers["airflow-api-server"]["minReplicas"], scalers["airflow-api-server"]["maxReplicas"]) == (2, 2)


def test_nobody_else_says_how_many_replicas_there_are(scaled: Declared) -> None:
    numbers = {name: each["spec"].get("replicas") for name, each in scaled.pretender.objects("Deployment")}
    assert {name for name, number in numbers.items() if number is None} == {"airflow-compute", "airflow-api-server"}
    assert {number for number in numbers.values() if number is not None} == {1}


def test_each_of_them_is_told_apart_and_has_time_to_end(scaled: Declared) -> None:
    pods = dict(scaled.pretender.pods())
    assert "airflow-compute-1" not in pods
    spec = pods["airflow-compute"]["spec"]
    assert "hostname" not in spec, "all of them would be called the same"
    assert spec["terminationGracePeriodSeconds"] == 240
    assert pods["airflow-io-1"]["spec"]["terminationGracePeriodSeconds"] == 300
    assert "compute@%h" in spec["containers"][0]["args"]
    assert pods["airflow-io-1"]["spec"]["hostname"] == "io-1"
    facts = {each["name"]: each.get("autoscaling") for each in scaled.outputs["services"]["worker"]}
    assert facts == {"default-1": None, "heavy-1": None, "io-1": None, "compute": [1, 3]}
    budgets = dict(scaled.pretender.objects("PodDisruptionBudget"))
    assert budgets["airflow-api-server-pdb"]["spec"]["minAvailable"] == 1


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The lab with several executors, whose Celery workers are scaled by their tasks."""
    bounds = {"default": {"most": 3, "least": 0, "by": "tasks"}}
    return declare("multi", tmp_path_factory.mktemp("engine"), "keda", autoscaling=bounds)


def test_keda_is_told_what_to_count_and_where(counted: Declared) -> None:
    (spec,) = [each["spec"] for _, each in counted.pretender.objects("ScaledObject")]
    assert spec["scaleTargetRef"]["name"] == "airflow-default"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 3)
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "postgresql" and trigger["metadata"]["targetQueryValue"] == "2"
    assert trigger["authenticationRef"] == {"name": "airflow-default"}
    ((name, login),) = counted.pretender.objects("TriggerAuthentication")
    assert name == "airflow-default"
    (reference,) = login["spec"]["secretTargetRef"]
    secrets = dict(counted.pretender.objects("Secret"))
    text = base64.b64decode(secrets[reference["name"]]["data"][reference["key"]]).decode()
    host = "airflow-postgresql.airflow-multi-declared.svc.cluster.local"
    assert text == f"postgresql://airflow:hidden-database_password@{host}:5432/airflow"
    assert not list(counted.pretender.objects("HorizontalPodAutoscaler")), "KEDA makes that itself"
    assert "replicas" not in dict(counted.pretender.objects("Deployment"))["airflow-default"]["spec"]


def test_keda_reaches_the_database_and_nothing_else(counted: Declared) -> None:
    policies = {name: each["spec"] for name, each in counted.pretender.objects("NetworkPolicy")}
    (rule,) = policies["airflow-postgresql-counted"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 5432}]
    assert rule["from"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "keda-operator"}}}]
    pods = dict(counted.pretender.pods())
    assert policies["airflow-postgresql-counted"]["podSelector"]["matchLabels"].items() <= (
        pods["airflow-postgresql"]["metadata"]["labels"].items()
    )
    assert counted.pretender.made["Keda", "keda"]["adapter"] == "airflow-executor-labs/keda-adapter:abc"


def test_in_a_cluster_of_the_users_keda_is_there_already(tmp_path: Path) -> None:
    lab = declare("celery", tmp_path, "keda", cluster="context:theirs")
    assert lab.pretender.made["ContextCluster", "cluster"]["counted"] is True
    assert ("Keda", "keda") not in lab.pretender.made


class Pods:
    """A cluster with these pods, whose logs say what they must."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = pods

    def items(self, _path: str, **_: Any) -> list[dict[str, Any]]:
        return list(self.pods)

    def text(self, *_: Any, **__: Any) -> str:
        return "compute@airflow-compute-1 ready"


def worker(uid: str, *, ready: bool, created: str) -> dict[str, Any]:
    status = {"name": "base", "ready": ready, "restartCount": 0, "state": {}}
    metadata = {"name": f"airflow-compute-{uid}", "uid": uid, "creationTimestamp": created}
    return {"metadata": metadata, "status": {"containerStatuses": [status]}}


OLD, NEW = worker("old", ready=True, created="1"), worker("new", ready=False, created="2")


@pytest.mark.parametrize(("pods", "uid"), [((), ""), ((OLD,), "old"), ((OLD, NEW), "old")])
def test_of_workers_that_are_scaled_there_may_be_any_number(
    monkeypatch: pytest.MonkeyPatch, pods: tuple[dict[str, Any], ...], uid: str
) -> None:
    monkeypatch.setattr(resources, "cluster", lambda _kubeconfig: Pods(*pods))
    props = {
        **dict.fromkeys(("kubeconfig", "template", "selector"), "x"),
        "name": "compute",
        "namespace": "t",
        "container": "base",
        "log": r"compute@\S+ ready",
        "timeout": 0,
    }
    provider = resources._ServicePodProvider()
    made = provider.create({**props, "scaled": True}).outs
    assert made["uid"] == uid
    monkeypatch.setattr(resources, "cluster", lambda _kubeconfig: Pods(NEW))
    assert not provider.diff("", made, {**props, "scaled": True}).changes, "its autoscaler has changed them"
    assert provider.diff("", {**made, "scaled": False}, {**props, "scaled": False}).changes
    with pytest.raises(LabError, match="waited 0 s for compute to be ready"):
        provider.create({**props, "scaled": False})


@pytest.mark.parametrize(("ready", "waits"), [(True, False), (False, True)])
def test_a_pod_that_its_node_starts_again_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, ready: bool, waits: bool
) -> None:
    same = dict.fromkeys(("kubeconfig", "template", "log", "selector", "namespace"), "x")
    props = {**same, "scaled": False, "container": "base", "uid": "same"}
    monkeypatch.setattr(resources, "cluster", lambda _kubeconfig: Pods(worker("same", ready=ready, created="1")))
    assert resources._ServicePodProvider().diff("", props, props).changes == waits


SEVERAL = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector fits, as far as this project's go."""
    assert {each["operator"] for each in selector["matchExpressions"]} == {"Exists"}
    exists = all(each["key"] in labels for each in selector["matchExpressions"])
    return exists and selector["matchLabels"].items() <= labels.items()


def test_each_role_with_several_has_a_budget_that_leaves_one(doubled: Declared) -> None:
    pods = dict(doubled.pretender.pods())
    budgets = dict(doubled.pretender.objects("PodDisruptionBudget"))
    assert set(budgets) == {f"airflow-{role}-pdb" for role in SEVERAL}
    for role in SEVERAL:
        spec = budgets[f"airflow-{role}-pdb"]["spec"]
        assert spec["minAvailable"] == 1 and type(spec["minAvailable"]) is int, "no controller knows the whole"
        chosen = {name for name, pod in pods.items() if selected(spec["selector"], pod["metadata"]["labels"])}
        names = (
            {"airflow-zone-a-1", "airflow-zone-b-1"} if role == "worker" else {f"airflow-{role}-{n}" for n in (1, 2)}
        )
        assert chosen == names
    task = {"tier": "airflow", "release": "ha-declared", "component": "worker"}
    assert not selected(budgets["airflow-worker-pdb"]["spec"]["selector"], task)


def test_what_there_are_several_of_is_spread_over_zones(doubled: Declared) -> None:
    for name, pod in doubled.pretender.pods():
        labels, spec = pod["metadata"]["labels"], pod["spec"]
        if labels["component"] not in SEVERAL:
            assert not {"tolerations", "topologySpreadConstraints", "affinity"} & spec.keys(), name
            continue
        (spread,) = spec["topologySpreadConstraints"]
        assert (spread["maxSkew"], spread["topologyKey"]) == (1, "topology.kubernetes.io/zone")
        # a node that is drained must not keep the other one from taking everything
        assert (spread["whenUnsatisfiable"], spread["nodeTaintsPolicy"]) == ("DoNotSchedule", "Honor")
        assert selected(spread["labelSelector"], labels), name
        assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert ("affinity" in spec) == (labels["component"] == "worker")
    (wish,) = dict(doubled.pretender.pods())["airflow-zone-b-1"]["spec"]["affinity"]["nodeAffinity"].values()
    assert wish[0]["preference"]["matchExpressions"][0]["values"] == ["b"]


def test_a_worker_with_a_zone_goes_where_nothing_else_does(tmp_path: Path) -> None:
    lab = declare("celery", tmp_path, workers={"compute": {"zone": "b"}})
    pods = {name: pod["spec"] for name, pod in lab.pretender.pods()}
    assert {name for name, spec in pods.items() if "tolerations" in spec} == {"airflow-compute-1"}
    assert "affinity" in pods["airflow-compute-1"] and "topologySpreadConstraints" not in pods["airflow-compute-1"]


def test_services_go_before_workers(doubled: Declared) -> None:
    classes = {name: each["value"] for name, each in doubled.pretender.objects("PriorityClass")}
    assert classes == {"airflow-ha-declared-services": 3000, "airflow-ha-declared-workers": 2000}
    given = {name: classes[pod["spec"]["priorityClassName"]] for name, pod in doubled.pretender.pods()}
    assert {name for name, value in given.items() if value == 2000} == {"airflow-zone-a-1", "airflow-zone-b-1"}


def test_a_lab_with_one_of_each_asks_for_nothing_of_that(declared: Declared) -> None:
    assert not list(declared.pretender.objects("PodDisruptionBudget", "PriorityClass"))
    for _, pod in declared.pretender.pods():
        assert not {"tolerations", "topologySpreadConstraints", "priorityClassName"} & pod["spec"].keys()


def test_two_api_servers_are_behind_one_address(doubled: Declared) -> None:
    services = dict(doubled.pretender.objects("Service"))
    public = {name for name, each in services.items() if each["spec"]["type"] == "NodePort"}
    assert public == {"airflow-load-balancer"}
    assert {"airflow-api-server-1", "airflow-api-server-2", "airflow-pgbouncer"} <= set(services)
    assert doubled.outputs["internal_api_url"] == "http://airflow-load-balancer:8080"
    secrets = dict(doubled.pretender.objects("Secret"))
    settings = base64.b64decode(secrets["airflow-haproxy-cfg"]["data"]["haproxy.cfg"]).decode()
    assert "server api-server-2 airflow-api-server-2:8080" in settings


def in_namespace(declared: Declared, kind: str, namespace: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind in a namespace, by name."""
    found = (each for (of, _), each in declared.pretender.made.items() if of == kind)
    return {
        each["metadata"]["name"]: plain_outputs(each) for each in found if each["metadata"]["namespace"] == namespace
    }


def test_a_site_has_a_namespace_of_its_own_with_what_it_mounts(edge: Declared) -> None:
    namespaces = dict(edge.pretender.objects("Namespace"))
    assert set(namespaces) == {"airflow-edge-declared", *(f"airflow-edge-declared-{site}" for site in SITES)}
    for site in SITES:
        place = f"airflow-edge-declared-{site}"
        assert namespaces[place]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        (workload,) = in_namespace(edge, "StatefulSet", place).values()
        assert not in_namespace(edge, "Deployment", place) and not in_namespace(edge, "Role", place)
        volumes = workload["spec"]["template"]["spec"]["volumes"]
        for kind, source, key in (
            ("ConfigMap", "configMap", "name"),
            ("Secret", "secret", "secretName"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            wanted = {each[source][key] for each in volumes if source in each}
            assert wanted == set(in_namespace(edge, kind, place)), f"{site} mounts other {kind}s than there are for it"
    claims = {name: each["spec"]["claimRef"] for name, each in edge.pretender.objects("PersistentVolume")}
    assert claims["airflow-edge-declared-site-a-dags"] == {
        "namespace": "airflow-edge-declared-site-a",
        "name": "airflow-dags",
    }


def test_a_site_reaches_the_api_server_and_knows_it_alone(edge: Declared) -> None:
    place = "airflow-edge-declared-site-a"
    (server,) = in_namespace(edge, "Service", place).items()
    assert server[0] == "airflow-api-server"
    assert server[1]["spec"]["externalName"] == "airflow-api-server.airflow-edge-declared.svc.cluster.local"
    policies = {name: each["spec"] for name, each in in_namespace(edge, "NetworkPolicy", place).items()}
    assert set(policies) == {"airflow-default-deny", "airflow-name-lookups", "airflow-api-server"}
    (rule,) = policies["airflow-api-server"]["egress"]
    (peers,) = rule["to"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert peers["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "airflow-edge-declared"}
    own = dict(in_namespace(edge, "Deployment", "airflow-edge-declared"))
    chosen = {
        name
        for name, each in own.items()
        if peers["podSelector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
    }
    assert chosen == {"airflow-api-server"}
    (fact,) = (each for each in edge.outputs["services"]["edge-worker"] if each["name"] == "site-a")
    assert (fact["namespace"], fact["workload"]) == (place, "statefulset/airflow-site-a")
    secrets = base64.b64decode(in_namespace(edge, "Secret", place)["airflow-site-a-env"]["data"]["secrets"]).decode()
    assert secrets.count("export ") == 1 and "hidden-jwt_secret" in secrets


def test_a_site_ends_in_order_and_starts_anew(edge: Declared) -> None:
    (container,) = dict(edge.pretender.pods())["airflow-site-a"]["spec"]["containers"]
    assert "rm -f /lab/site-a-home/registered.pid; " in container["command"][2]
    (_, _, asked) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert asked.startswith("kill -INT 1; while kill -0 1;"), "TERM would come at once, which ends its tasks"


def test_all_that_runs_or_parses_tasks_has_the_same_executors(any_lab: Declared) -> None:
    lists = {
        (name, each["value"])
        for name, pod in any_lab.pretender.pods()
        for each in pod["spec"]["containers"][0].get("env", ())
        if each["name"] == "AIRFLOW__CORE__EXECUTOR"
    }
    assert {value for _, value in lists} == {",".join(any_lab.outputs["executors"])}
    tasks = {"default.yaml", "small.yaml"} if "KubernetesExecutor" in any_lab.outputs["executors"] else set()
    assert len(lists) > len(tasks) + 4 and tasks <= {name for name, _ in lists}
