"""The kubernetes platform: services are Deployments and StatefulSets in a namespace of the lab's own.

Names, labels and ports are those of Airflow's official chart. The namespace enforces Pod Security `restricted`; nothing
comes from or goes to a node's own disk by a path. Secrets come as a file that a container's shell reads. A service that
may reach only some others, such as a site, has a namespace of its own, which knows these by their names and no others.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as k8s
import yaml

from components.autoscaling import Autoscaling
from components.clusters.base import GPU, ZONE, Cluster, with_namespace
from components.clusters.keda import OPERATOR
from components.platforms.base import (
    Endpoint,
    Grant,
    Health,
    Image,
    JobSpec,
    Port,
    Service,
    ServiceSpec,
    Stop,
    TaskCount,
    TaskPod,
    Volume,
    digest,
)
from components.platforms.docker.platform import ENTRY_POINTS, exports
from components.platforms.docker.resources import HostFile, HostFolder
from components.platforms.kubernetes import pods
from components.platforms.kubernetes.names import (
    RELEASE,
    SERVICE,
    component_of,
    container_of,
    host_of,
    namespace_of,
    object_name,
    owner,
    port_name,
    release_of,
    slug,
)
from components.platforms.kubernetes.pods import COPIES, NOBODY, ROOT, SAFE, SECRETS
from components.platforms.kubernetes.resources import NodeImage, PublishedPort, ServicePod
from labs import images
from labs.cluster import OWNER
from labs.errors import UsageError
from labs.processes import marks

KINDS: Mapping[str, Any] = {
    "ConfigMap": k8s.core.v1.ConfigMap,
    "Deployment": k8s.apps.v1.Deployment,
    "HorizontalPodAutoscaler": k8s.autoscaling.v2.HorizontalPodAutoscaler,
    "Job": k8s.batch.v1.Job,
    "NetworkPolicy": k8s.networking.v1.NetworkPolicy,
    "PersistentVolume": k8s.core.v1.PersistentVolume,
    "PersistentVolumeClaim": k8s.core.v1.PersistentVolumeClaim,
    "PodDisruptionBudget": k8s.policy.v1.PodDisruptionBudget,
    "PriorityClass": k8s.scheduling.v1.PriorityClass,
    "Role": k8s.rbac.v1.Role,
    "RoleBinding": k8s.rbac.v1.RoleBinding,
    "Secret": k8s.core.v1.Secret,
    "ScaledObject": partial(k8s.apiextensions.CustomResource, api_version="keda.sh/v1alpha1", kind="ScaledObject"),
    "Service": k8s.core.v1.Service,
    "ServiceAccount": k8s.core.v1.ServiceAccount,
    "StatefulSet": k8s.apps.v1.StatefulSet,
    "TriggerAuthentication": partial(
        k8s.apiextensions.CustomResource, api_version="keda.sh/v1alpha1", kind="TriggerAuthentication"
    ),
}

CLUSTER_WIDE = ("PersistentVolume", "PriorityClass")
"""Kinds that are in no namespace; those of a lab have its name in theirs."""

PRIORITIES: Mapping[str, int] = {"tasks": 1000, "workers": 2000, "services": 3000}
"""Where a cluster is full, what has more takes the place of what has less."""

WORKERS = ("worker", "edge-worker")
"""Roles that run tasks."""

RULES: Mapping[Grant, list[dict[str, list[str]]]] = {
    "run task pods": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "list", "get", "patch", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
    ],
    "read task pods": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "get", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
    ],
}
"""https://airflow.apache.org/docs/helm-chart/stable/ (pod-launcher-role, pod-log-reader-role)"""

READINESS = Path(__file__).parent / "readiness" / "airflow_local_settings.py"
"""What tells a container, by a file, what else only its log does."""

CALM = 60
"""Seconds for which an autoscaler must have wanted fewer replicas, before there are fewer; 300 by default."""

REACHES: Mapping[str, str] = {"reaches": "kubernetes-api"}
"""Label of pods that may ask the Kubernetes API; a task gives it to its own with a `pod_override`."""

WORKER = "worker"
"""Component and service account of task pods, as in the chart."""

TASKS: Mapping[str, Any] = {"matchLabels": {"kubernetes_executor": "True"}}
"""What selects the pods of tasks: by the executor's own label, which pods of a user's template have too."""

LARGEST = 2**20
"""Bytes that a ConfigMap holds at most."""

IGNORE = {".airflowignore": "..*\n"}
"""In every mounted folder: Kubernetes keeps its files behind links that Airflow would take for an endless loop."""

DOMAIN = "svc.cluster.local"
"""What the names of Services end with; no API tells, and hardly a cluster has another.
https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/"""

Pod = dict[str, Any]

Mounted = tuple[Any, list[Any]]
"""A volume of a pod, and where its container sees it."""


@dataclass(frozen=True)
class Space:
    """A namespace of a lab.

    Attributes:
        name: of the namespace.
        ready: the same, once it is there.
        key: what the names of its resources begin with in the program; "" for the lab's own namespace.
    """

    name: str
    ready: pulumi.Output[str]
    key: str = ""


class KubernetesPlatform:
    """One lab's namespace in a cluster.

    Args:
        home: the lab directory; its parent's name is the lab's.
        cluster: where the namespace is.
        budgets: roles of which the lab has several, and how many of each a planned disruption must leave. These
            services are spread over zones; without any, a lab has no priorities either.
        counting: what must be there before an autoscaler counts tasks.
        database: port of a database that is not the lab's own, which services reach wherever it is.
        airflow_image: name and tag of the user's image of Airflow; "": the labs' own.
    """

    name = "kubernetes"

    def __init__(
        self,
        home: Path,
        cluster: Cluster,
        budgets: Mapping[str, int],
        counting: Sequence[pulumi.Resource] = (),
        database: int | None = None,
        airflow_image: str = "",
    ) -> None:
        self._home = home
        self._counting = counting
        self._lab = home.parent.name
        self._release = release_of(self._lab)
        self._cluster = cluster
        self._budgets = budgets
        # what was in a kind cluster that somebody has removed is gone; another may answer again
        gone = True if cluster.kind == "kind" else None
        self._provider = k8s.Provider("kubernetes", kubeconfig=cluster.kubeconfig, delete_unreachable=gone)
        self._name = namespace_of(self._lab)
        directory = HostFolder("home", str(home), 0o700)
        inside = cluster.kubeconfig.apply(lambda text: with_namespace(text, self._name))
        self._kubeconfig = HostFile(
            "kubeconfig", directory.path.apply(lambda path: f"{path}/kubeconfig"), pulumi.Output.secret(inside)
        )
        self._own = self._space(self._name, "", pulumi.ResourceOptions())
        self._source, _ = images.chosen()
        self._users_images = {"airflow": airflow_image}
        self._images: dict[Image, NodeImage] = {}
        self._published: dict[Port, PublishedPort] = {}
        self._declared: dict[str, Callable[[Space], Mounted]] = {}
        self._mounts: dict[tuple[str, str], Mounted] = {}
        self._copies: dict[str, str] = {}
        self._volumes: set[str] = set()
        self._kept: set[str] = set()
        self._own_claims: dict[str, list[Any]] = {}
        self._let: set[str] = set()
        self._shared: dict[str, Mounted] = {}
        self._outside: dict[str, pulumi.Output[str]] = {}
        self._priorities: dict[str, pulumi.Output[str]] = {}
        self._readiness = self.volume("readiness", [READINESS], pulumi.ResourceOptions())
        self._policies(self._own, pulumi.ResourceOptions())
        if database:
            rule = {"ports": [{"protocol": "TCP", "port": database}]}
            policy = {"podSelector": self._services(), "policyTypes": ["Egress"], "egress": [rule]}
            self._make("NetworkPolicy", f"{RELEASE}-database", "database", pulumi.ResourceOptions(), spec=policy)
        for role, least in budgets.items():
            # of several workloads, so that only a number will do: of a share Kubernetes would not know the whole
            # https://kubernetes.io/docs/tasks/run-application/configure-pdb/#arbitrary-controllers-and-selectors
            fields = {"minAvailable": least, "selector": self._alike(role)}
            self._make("PodDisruptionBudget", f"{object_name(role)}-pdb", role, pulumi.ResourceOptions(), spec=fields)

    def offers(self, image: Image) -> bool:
        """Every image has a recipe."""
        return True

    def endpoint(self, port: Port) -> Endpoint:
        """The name of the service's Service; what is public is also at a NodePort."""
        host = pulumi.Output.from_input(object_name(port.service))
        number = pulumi.Output.from_input(str(port.number))
        outside = self._published_port(port).address if port.public else pulumi.Output.concat(host, ":", number)
        anywhere = pulumi.Output.from_input("0.0.0.0")
        return Endpoint(host=host, port=number, bind_host=anywhere, bind_port=number, outside=outside)

    def _published_port(self, port: Port) -> PublishedPort:
        if port not in self._published:
            props = {
                "kubeconfig": self._cluster.kubeconfig,
                "nodes": self._cluster.nodes,
                "namespace": self._name,
                "service": object_name(port.service),
                "wanted": port.wanted or 0,
                "others": [each.number for each in self._published.values()],
            }
            self._published[port] = PublishedPort(f"{port.service}-{port.name}-port", props)
        return self._published[port]

    def volume(self, name: str, contents: Sequence[Path], opts: pulumi.ResourceOptions) -> Volume:
        """The project's own files in ConfigMaps, one for each folder, which pods see change; else a claim."""
        self._volumes.add(name)
        if not contents:
            self._kept.add(name)
            self._declared[name] = lambda space: self._claim(name, space, opts)
            return Volume(pulumi.Output.from_input(f"{ROOT}/{name}"), name)
        if self._cluster.sees_home and all(each.is_dir() for each in contents):
            # more may be put beside them while services run
            inside = [each.name for each in contents]
            self._declared[name] = self._from_home(name, 0o755, inside, opts, read_only=True)
        folders = {each.name: sorted(each.glob("*.py")) for each in contents if each.is_dir()}
        files = [each for each in contents if each.is_file()]
        for folder, found in (folders | ({"": files} if files else {})).items():
            key = f"{name}/{folder}" if folder else name
            text = {**IGNORE, **{each.name: each.read_text() for each in found}}
            if sum(map(len, text.values())) > LARGEST:
                raise UsageError(f"{folder or name} has more than 1 MiB of files, which no ConfigMap holds: split it")
            self._declared[key] = self._config_map(slug(key), f"{ROOT}/{key}", text, opts)
        return Volume(pulumi.Output.from_input(f"{ROOT}/{name}"), name)

    def _claim(self, name: str, space: Space, opts: pulumi.ResourceOptions) -> Mounted:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        if space.key:  # there may be more of a service apart, each with a claim of its own
            self._own_claims.setdefault(space.key, []).append({"metadata": {"name": name}, "spec": spec})
            return pods.volume(name, {}, [{"mountPath": f"{ROOT}/{name}"}])
        self._make("PersistentVolumeClaim", f"{RELEASE}-{name}", name, opts, space=space, spec=spec)
        source = {"persistentVolumeClaim": {"claimName": f"{RELEASE}-{name}"}}
        return pods.volume(name, source, [{"mountPath": f"{ROOT}/{name}"}])

    def _config_map(
        self, name: str, path: str, text: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
    ) -> Callable[[Space], Mounted]:
        def mounted(space: Space) -> Mounted:
            self._make("ConfigMap", f"{RELEASE}-{name}", name, opts, space=space, data=dict(text))
            mounts = [{"mountPath": path, "readOnly": True}]
            return pods.volume(name, {"configMap": {"name": f"{RELEASE}-{name}"}}, mounts)

        return mounted

    def exchange(self, name: str, opts: pulumi.ResourceOptions) -> Volume:
        """A folder of the lab directory, where the nodes see that; else a folder of its own for each pod."""
        path = str(self._home / name)
        if self._cluster.sees_home:
            self._declared[name] = self._from_home(name, 0o755, [], opts, target=path)
        else:
            self._declared[name] = lambda _space: pods.volume(name, {"emptyDir": {}}, [{"mountPath": path}])
            self._outside[name] = HostFolder(f"{name}-folder", path, 0o755, (), opts).path
        return Volume(self._outside[name], name)

    def _from_home(
        self,
        name: str,
        mode: int,
        folders: Sequence[str],
        opts: pulumi.ResourceOptions,
        *,
        target: str = "",
        read_only: bool = False,
    ) -> Callable[[Space], Mounted]:
        """A folder of the lab directory as a claim: no pod names a path of its node."""
        folder = HostFolder(f"{name}-folder", str(self._home / name), mode, folders, opts)
        self._outside[name] = folder.path
        claim, size = f"{RELEASE}-{name}", {"storage": "1Gi"}
        anywhere = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}

        def mounted(space: Space) -> Mounted:
            volume = self._make(
                "PersistentVolume",
                f"{space.name}-{name}",
                name,
                opts,
                space=space,
                spec={
                    "capacity": size,
                    "accessModes": ["ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "",
                    "claimRef": {"namespace": space.name, "name": claim},
                    "local": {"path": folder.path},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [anywhere]}]}},
                },
            )
            spec = {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": f"{space.name}-{name}",
                "resources": {"requests": size},
            }
            after = pulumi.ResourceOptions(parent=opts.parent, depends_on=[volume])
            self._make("PersistentVolumeClaim", claim, name, after, space=space, spec=spec)
            source = {"persistentVolumeClaim": {"claimName": claim}}
            return pods.volume(name, source, [{"mountPath": target or f"{ROOT}/{name}", "readOnly": read_only}])

        return mounted

    def outside(self, volume: Volume) -> pulumi.Output[str]:
        """In the lab directory; "" for what is in the cluster alone."""
        return self._outside.get(volume.name, pulumi.Output.from_input(""))

    def file(
        self, name: str, text: pulumi.Input[str], opts: pulumi.ResourceOptions, *, writable: bool = False
    ) -> Volume:
        """A Secret; what is writable is copied into each pod that has it."""
        key, label = f"{Path(name).stem}/{name}", slug(name)
        encoded = pulumi.Output.secret(text).apply(lambda plain: base64.b64encode(plain.encode()).decode())
        if writable:
            self._copies[key] = f"{COPIES}/{label}/{name}"
            mount = {"mountPath": f"{COPIES}/{label}", "readOnly": True}
        else:
            mount = {"mountPath": f"{ROOT}/{key}", "subPath": name, "readOnly": True}

        def mounted(space: Space) -> Mounted:
            made = self._make("Secret", f"{RELEASE}-{label}", label, opts, space=space, data={name: encoded})
            return pods.volume(label, _secret(made, f"{RELEASE}-{label}"), [mount])

        self._declared[key] = mounted
        return Volume(pulumi.Output.from_input(f"{ROOT}/{key}"), key)

    def service(self, name: str, spec: ServiceSpec, opts: pulumi.ResourceOptions) -> Service:
        """A Deployment, or a StatefulSet where it keeps something, with a Service where it listens.

        How many replicas there are of what an autoscaler scales is the autoscaler's alone: no number is applied. What
        is apart may be scaled by hand: each pod then has a name and a claim of its own.
        """
        child = pulumi.ResourceOptions(parent=opts.parent)
        labels = {"tier": "airflow", "release": self._release, "component": component_of(spec.role), SERVICE: name}
        labels |= REACHES if spec.grants else {}
        space = self._own if spec.reaches is None else self._apart(name, spec.reaches, child)
        self._account(name, spec.grants, child, space)
        template = self._pod(name, spec, labels, child, space)
        scaling, keeps = spec.autoscaling, any(each.name in self._kept for each in spec.volumes)
        number: dict[str, Any] = {} if scaling else {"replicas": 1}
        fields: dict[str, Any] = {**number, "selector": {"matchLabels": labels}, "template": template}
        if keeps:
            own = {"volumeClaimTemplates": self._own_claims[space.key]} if space.key else {}
            kind, fields = "StatefulSet", {**fields, "serviceName": object_name(name), **own}
        else:
            kind, fields = "Deployment", {**fields, "strategy": {"type": "Recreate"}}
        workload = self._make(kind, object_name(name), name, opts, labels, space=space, spec=fields)
        if spec.ports:
            # a Service waits for its pods as the workload does, which alone can tell that they are beyond hope
            self._listen(name, spec, labels, pulumi.ResourceOptions(parent=opts.parent, depends_on=[workload]))
        if scaling:
            after = pulumi.ResourceOptions(parent=opts.parent, depends_on=[workload, *self._counting])
            if scaling.by == "tasks" and spec.tasks:
                self._scale_by_tasks(name, scaling, spec.tasks, after)
            else:
                self._scale_by_cpu(name, scaling, after)
        health = spec.health or Health()
        container = container_of(spec.role)
        props = {
            "kubeconfig": self._cluster.kubeconfig,
            "name": name,
            "namespace": space.ready,
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
            "container": container,
            "log": health.log,
            "timeout": health.timeout,
            "scaled": scaling is not None,
            "template": pulumi.Output.all(template, workload.id).apply(
                lambda seen: digest(json.dumps(seen[0], sort_keys=True))
            ),
        }
        ready = ServicePod(f"{name}-ready", props, child)
        addresses = pulumi.Output.from_input({port.name: self.endpoint(port).outside for port in spec.ports})
        facts = pulumi.Output.all(ready.pod, self._kubeconfig.path, addresses).apply(
            lambda seen: [
                {
                    "name": name,
                    "host": host_of(seen[0], space.name, container, seen[1]),
                    "endpoints": seen[2],
                    "log": f"{kind.lower()}/{object_name(name)}",
                    "workload": f"{kind.lower()}/{object_name(name)}",
                    "namespace": space.name,
                    **({"autoscaling": [scaling.least, scaling.most]} if scaling else {}),
                }
            ]
        )
        return Service(ready, facts)

    def _scale_by_cpu(self, name: str, scaling: Autoscaling, opts: pulumi.ResourceOptions) -> None:
        """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/"""
        target = {"type": "AverageValue", "averageValue": f"{scaling.cpu}m"}
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": object_name(name)},
            "minReplicas": scaling.least,
            "maxReplicas": scaling.most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": CALM}},
        }
        self._make("HorizontalPodAutoscaler", object_name(name), name, opts, spec=spec)

    def _scale_by_tasks(self, name: str, scaling: Autoscaling, tasks: TaskCount, opts: pulumi.ResourceOptions) -> None:
        """https://keda.sh/docs/2.20/scalers/postgresql/ and https://keda.sh/docs/2.20/reference/scaledobject-spec/"""
        object_, secret = object_name(name), f"{object_name(name)}-tasks"
        url: pulumi.Output[str] = pulumi.Output.secret(
            pulumi.Output.from_input(tasks.database).apply(self._from_elsewhere)
        )
        encoded = url.apply(lambda plain: base64.b64encode(plain.encode()).decode())
        child = pulumi.ResourceOptions(parent=opts.parent)
        login = self._make("Secret", secret, f"{name}-tasks", child, data={"connection": pulumi.Output.secret(encoded)})
        asked = [{"parameter": "connection", "name": secret, "key": "connection"}]
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[login]))
        authenticated = self._make("TriggerAuthentication", object_, name, after, spec={"secretTargetRef": asked})
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": object_},
            "minReplicaCount": scaling.least,
            "maxReplicaCount": scaling.most,
            "pollingInterval": 5,  # 30 by default: how soon the first task is seen
            "cooldownPeriod": CALM,
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": CALM}}}
            },
            "triggers": [
                {
                    "type": "postgresql",
                    "metadata": {"query": tasks.query, "targetQueryValue": str(tasks.slots)},
                    "authenticationRef": {"name": object_},
                }
            ],
        }
        last = pulumi.ResourceOptions.merge(after, pulumi.ResourceOptions(depends_on=[authenticated]))
        self._make("ScaledObject", object_, name, last, spec=spec)
        self._let_in("metadata-database", 5432, OPERATOR)

    def _from_elsewhere(self, url: str) -> str:
        """A database's URL for who is in another namespace, as any driver takes it."""
        parts = urlsplit(url)
        host = str(parts.hostname)
        known = host if "." in host else f"{host}.{self._name}.{DOMAIN}"
        login, _, address = parts.netloc.rpartition("@")
        return parts._replace(scheme="postgresql", netloc=f"{login}@{address.replace(host, known, 1)}").geturl()

    def _let_in(self, service: str, port: int, labels: Mapping[str, str]) -> None:
        """Pods with these labels, of whichever namespace, reach a port of a service."""
        name = f"{object_name(service)}-counted"
        if name in self._let:
            return
        self._let.add(name)
        peers = {"namespaceSelector": {}, "podSelector": {"matchLabels": dict(labels)}}
        policy = {
            "podSelector": {"matchLabels": {"tier": "airflow", "release": self._release, SERVICE: service}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [peers], "ports": [{"protocol": "TCP", "port": port}]}],
        }
        self._make("NetworkPolicy", name, f"{service}-counted", pulumi.ResourceOptions(), spec=policy)

    def job(self, name: str, spec: JobSpec, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """A Job, of one try."""
        child = pulumi.ResourceOptions(parent=opts.parent)
        labels = {"tier": "airflow", "release": self._release, "component": component_of(spec.role), SERVICE: name}
        self._account(name, (), child, self._own)
        template = self._pod(name, spec, labels, child, self._own)
        template["spec"]["restartPolicy"] = "Never"
        fields = {"backoffLimit": 0, "activeDeadlineSeconds": int(spec.timeout), "template": template}
        made: pulumi.Resource = self._make("Job", object_name(name), name, opts, spec=fields)
        return made

    def place(self) -> pulumi.Output[dict[str, str]]:
        """The lab's own kubeconfig, and what of cluster it leads to."""
        context = self._cluster.kubeconfig.apply(lambda text: str(yaml.safe_load(text)["current-context"]))
        return pulumi.Output.all(self._kubeconfig.path, pulumi.Output.unsecret(context)).apply(
            lambda seen: {
                "kubeconfig": seen[0],
                "context": seen[1],
                "namespace": self._name,
                "kind": self._cluster.kind,
            }
        )

    def task_objects(self, settings: str, password: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
        """As the curriculum's DAGs name them, with a service account for tasks that look at pods."""
        self._account("pod-reader", ["read task pods"], opts, self._own)
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
        self._make("PersistentVolumeClaim", "task-data", "task-data", opts, spec=spec)
        self._make("ConfigMap", "task-settings", "task-settings", opts, data={"settings.json": settings})
        encoded = pulumi.Output.secret(password).apply(lambda plain: base64.b64encode(plain.encode()).decode())
        self._make("Secret", "task-credentials", "task-credentials", opts, data={"password": encoded})

    def task_options(self) -> Mapping[str, pulumi.Input[str]]:
        """Where the KubernetesExecutor makes pods, and of what."""
        reference = self._image("airflow").reference
        return {
            "kubernetes_executor.namespace": self._name,
            "kubernetes_executor.pod_template_file": f"{ROOT}/pod-templates/default.yaml",
            "kubernetes_executor.worker_container_repository": reference.apply(lambda name: name.rpartition(":")[0]),
            "kubernetes_executor.worker_container_tag": reference.apply(lambda name: name.rpartition(":")[2]),
        }

    def task_templates(
        self, templates: Mapping[str, TaskPod | str], reaches: Sequence[Port], opts: pulumi.ResourceOptions
    ) -> Volume:
        """A ConfigMap, of which the scheduler sees the latest state for each pod that it makes."""
        self._account(WORKER, (), opts, self._own)
        egress = [self._to(port) for port in reaches]
        policy = {"podSelector": dict(TASKS), "policyTypes": ["Egress"], "egress": egress}
        self._make("NetworkPolicy", f"{RELEASE}-tasks", "tasks", opts, spec=policy)
        text = {name: each if isinstance(each, str) else self._task_pod(each) for name, each in templates.items()}
        name = "pod-templates"
        self._declared[name] = self._config_map(name, f"{ROOT}/{name}", text, opts)
        return Volume(pulumi.Output.from_input(f"{ROOT}/{name}"), name)

    def _task_pod(self, pod: TaskPod) -> pulumi.Output[str]:
        volumes, mounts, _ = self._mounted(pod.volumes, self._own, shared=False)
        reference = self._image("airflow").reference
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "task",
                "labels": {"tier": "airflow", "release": self._release, "component": WORKER, **pod.labels},
                "annotations": dict(pod.annotations),
            },
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": f"{RELEASE}-{WORKER}",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": NOBODY,
                "terminationGracePeriodSeconds": 30,
                **self._priority("tasks"),
                "containers": [
                    {
                        "name": "base",
                        "image": reference,
                        "imagePullPolicy": "IfNotPresent",
                        "env": pods.variables(pod.environment),
                        "resources": {"requests": dict(pod.requests), "limits": dict(pod.limits)},
                        "securityContext": SAFE,
                        "volumeMounts": mounts,
                    }
                ],
                "volumes": volumes,
            },
        }
        return pulumi.Output.from_input(manifest).apply(lambda seen: str(yaml.safe_dump(seen, sort_keys=False)))

    def _pod(
        self,
        name: str,
        spec: ServiceSpec | JobSpec,
        labels: Mapping[str, str],
        opts: pulumi.ResourceOptions,
        space: Space,
    ) -> Pod:
        given: pulumi.Output[Any] = pulumi.Output.from_input(dict(spec.secrets))
        settings: pulumi.Output[str] = pulumi.Output.secret(given.apply(exports))
        encoded = settings.apply(lambda text: base64.b64encode(text.encode()).decode())
        secret = f"{object_name(name)}-env"
        data: dict[str, pulumi.Output[str]] = {"secrets": pulumi.Output.secret(encoded)}
        made = self._make("Secret", secret, f"{name}-env", opts, space=space, data=data)
        health = (spec.health if isinstance(spec, ServiceSpec) else None) or Health()
        tells = [self._readiness] if health.log else []
        volumes, mounts, copies = self._mounted([*spec.volumes, *tells], space, shared=True)
        mount = {"mountPath": SECRETS.rpartition("/")[0], "readOnly": True}
        more, where = pods.volume("env", _secret(made, secret), [mount])
        job = isinstance(spec, JobSpec)
        stop = Stop() if isinstance(spec, JobSpec) else spec.stop
        numbered = bool(space.key)  # one that is apart may be scaled by hand
        path = {"PYTHONPATH": self._readiness.path} if health.log else {}
        shell = pulumi.Output.from_input(health.file).apply(lambda file: pods.entry(copies, file, numbered=numbered))
        command = ["/bin/sh", "-c", shell, name, *ENTRY_POINTS.get(spec.image, ())]
        granted = isinstance(spec, ServiceSpec) and bool(spec.grants)
        scaled = isinstance(spec, ServiceSpec) and spec.autoscaling is not None
        container: dict[str, Any] = {
            "name": container_of(spec.role),
            "image": self._image(spec.image).reference,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "args": list(spec.command),
            "env": pods.variables({**marks(str(self._home), name), **path, **spec.environment}),
            "resources": pods.resources(spec.image, spec.role),
            "securityContext": SAFE,
            "volumeMounts": [*mounts, *where],
            **pods.ending(stop),
        }
        whole = pulumi.Output.all(container, pods.seen_of(health)).apply(lambda seen: {**seen[0], **seen[1]})
        # a process whose parent was killed has somebody to reap it; who ends on another signal must be process 1
        reaped = spec.image == "airflow" and not job and stop.signal == "TERM"
        return {
            "metadata": {
                "labels": dict(labels),
                "annotations": {"checksum/secrets": settings.apply(digest)},
            },
            "spec": {
                **({} if scaled else {"hostname": name}),  # as Airflow shows who runs a task
                "serviceAccountName": object_name(name),
                "automountServiceAccountToken": granted,
                "enableServiceLinks": False,
                "shareProcessNamespace": reaped,
                "securityContext": NOBODY,
                "terminationGracePeriodSeconds": int(stop.grace),
                **self._priority("workers" if spec.role in WORKERS else "services"),
                **self._placement(spec),
                "containers": [whole],
                "volumes": [*volumes, more],
            },
        }

    def _alike(self, role: str) -> dict[str, Any]:
        """What selects the services of a role, whichever their workloads; tasks' pods are none, though workers too."""
        return {
            "matchLabels": {"tier": "airflow", "release": self._release, "component": component_of(role)},
            "matchExpressions": [{"key": SERVICE, "operator": "Exists"}],
        }

    def _services(self, roles: Sequence[str] | None = None) -> dict[str, Any]:
        """What selects the services of these roles, or of all; jobs are among them."""
        found: list[dict[str, Any]] = [{"key": SERVICE, "operator": "Exists"}]
        if roles is not None:
            components = sorted(component_of(role) for role in roles)
            found.append({"key": "component", "operator": "In", "values": components})
        return {"matchLabels": {"tier": "airflow", "release": self._release}, "matchExpressions": found}

    def _priority(self, tier: str) -> dict[str, Any]:
        """What gives a pod its priority, in a lab that has several of a role."""
        if not self._budgets:
            return {}
        if tier not in self._priorities:
            name = f"{self._name}-{tier}"
            made = self._make("PriorityClass", name, tier, pulumi.ResourceOptions(), value=PRIORITIES[tier])
            self._priorities[tier] = pulumi.Output.all(name, made.id).apply(lambda seen: str(seen[0]))
        return {"priorityClassName": self._priorities[tier]}

    def _placement(self, spec: ServiceSpec | JobSpec) -> dict[str, Any]:
        """Where a pod may be: what there are several of is spread over zones, and what has a zone is to be there.

        Nodes that are kept for GPU work take either. One that takes no pods, because it is drained or away, does not
        count: the others may then have all of them.
        """
        if isinstance(spec, JobSpec) or not (spec.zone or spec.role in self._budgets):
            return {}
        placement: dict[str, Any] = {"tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]}
        spread = {
            "maxSkew": 1,
            "topologyKey": ZONE,
            "whenUnsatisfiable": "DoNotSchedule",
            "nodeTaintsPolicy": "Honor",
            "labelSelector": self._alike(spec.role),
        }
        if spec.role in self._budgets:
            placement["topologySpreadConstraints"] = [spread]
        if spec.zone:
            here = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [spec.zone]}]}
            wish = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}]}
            placement["affinity"] = {"nodeAffinity": wish}
        return placement

    def _mounted(
        self, wanted: Sequence[Volume], space: Space, *, shared: bool
    ) -> tuple[list[Any], list[Any], dict[str, str]]:
        """Volumes of a pod, mounts of its container, and the files of which it gets a copy.

        Args:
            shared: whether a folder that is no volume, such as that of the logs, is the same for all of them.
        """
        found = [pods.volume("tmp", {"emptyDir": {}}, [{"mountPath": "/tmp"}])]  # noqa: S108
        copies: dict[str, str] = {}
        for each in wanted:
            copied = each.name in self._copies
            folder = each.name.rpartition("/")[0] if copied else each.name
            if folder not in (*self._declared, *self._volumes):
                found.append(self._folder(folder) if shared and not copied else self._scratch(folder))
            keys = [key for key in self._declared if key == each.name or key.startswith(f"{each.name}/")]
            found += [self._mount(key, space) for key in keys]
            copies |= {self._copies[key]: f"{ROOT}/{key}" for key in keys if key in self._copies}
        volumes = [volume for volume, _ in found if volume.keys() != {"name"}]  # the others come with each pod
        return volumes, [mount for _, mounts in found for mount in mounts], copies

    def _mount(self, key: str, space: Space) -> Mounted:
        """What was declared, which is made in each namespace where it is wanted."""
        if (space.key, key) not in self._mounts:
            self._mounts[space.key, key] = self._declared[key](space)
        return self._mounts[space.key, key]

    def _folder(self, name: str) -> Mounted:
        """A folder that services share where their nodes see the lab directory; else one of its own for each pod."""
        if not self._cluster.sees_home:
            return self._scratch(name)
        if name not in self._shared:
            self._shared[name] = self._from_home(name, 0o777, [], pulumi.ResourceOptions())(self._own)
        return self._shared[name]

    @staticmethod
    def _scratch(name: str) -> Mounted:
        return pods.volume(slug(f"{name}-folder"), {"emptyDir": {}}, [{"mountPath": f"{ROOT}/{name}"}])

    def _listen(self, name: str, spec: ServiceSpec, labels: Mapping[str, str], opts: pulumi.ResourceOptions) -> None:
        ports = []
        for port in spec.ports:
            found: dict[str, Any] = {"name": port_name(spec.role), "port": port.number}
            if port.public:
                found["nodePort"] = self._published_port(port).number
            ports.append(found)
        kind = "NodePort" if any(port.public for port in spec.ports) else "ClusterIP"
        fields = {"type": kind, "selector": dict(labels), "ports": ports}
        self._make("Service", object_name(name), name, opts, spec=fields)
        rule: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": port.number} for port in spec.ports]}
        if kind == "ClusterIP":
            tasks = [{"podSelector": dict(TASKS)}] if spec.callers is None or "task" in spec.callers else []
            rule["from"] = [{"podSelector": self._services(spec.callers)}, *tasks]
        policy = {"podSelector": {"matchLabels": dict(labels)}, "policyTypes": ["Ingress"], "ingress": [rule]}
        self._make("NetworkPolicy", object_name(name), name, opts, spec=policy)

    def _space(self, name: str, key: str, opts: pulumi.ResourceOptions) -> Space:
        levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        made = k8s.core.v1.Namespace(
            f"{key}-namespace" if key else "namespace",
            metadata={"name": name, "labels": {**self._labels("namespace"), **levels}},
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(provider=self._provider)),
        )
        return Space(name, pulumi.Output.all(name, made.id).apply(lambda seen: str(seen[0])), key)

    def _apart(self, name: str, reaches: Sequence[Port], opts: pulumi.ResourceOptions) -> Space:
        """A namespace for a service that may reach these ports alone, which it knows by the names that all use."""
        space = self._space(f"{self._name}-{slug(name)}", name, opts)
        self._policies(space, opts)
        for port in reaches:
            there = object_name(port.service)
            fields = {"type": "ExternalName", "externalName": f"{there}.{self._name}.{DOMAIN}"}
            self._make("Service", there, port.service, opts, space=space, spec=fields)
            policy = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [self._to(port)]}
            self._make("NetworkPolicy", there, port.service, opts, space=space, spec=policy)
        return space

    def _to(self, port: Port) -> dict[str, Any]:
        """The rule of egress to a port of a service of the lab, from whichever namespace."""
        lab = {"matchLabels": {"kubernetes.io/metadata.name": self._name}}
        peers = {"namespaceSelector": lab, "podSelector": {"matchLabels": {SERVICE: port.service}}}
        return {"to": [peers], "ports": [{"protocol": "TCP", "port": port.number}]}

    def _policies(self, space: Space, opts: pulumi.ResourceOptions) -> None:
        """Nothing goes in or out but what follows, and what each service adds; of a service apart, only names.

        Services of the lab may try each other, and each says who gets in; what tasks in pods reach is said with them.
        """
        everybody: dict[str, Any] = {}
        lab = {"podSelector": self._services()}
        names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        # as clouds, kubeadm, minikube and MicroK8s have it
        api = [{"protocol": "TCP", "port": port} for port in (443, 6443, 8443, 16443)]
        rules: Mapping[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
            "default-deny": (everybody, []),
            "name-lookups": (everybody, [{"ports": names}]),
            "inside": (lab["podSelector"], [{"to": [lab]}]),
            "kubernetes-api": ({"matchLabels": dict(REACHES)}, [{"ports": api}]),
        }
        for name, (selector, egress) in rules.items():
            if space.key and selector:
                continue
            types = ["Ingress", "Egress"] if name == "default-deny" else ["Egress"]
            policy: dict[str, Any] = {"podSelector": selector, "policyTypes": types}
            if egress:
                policy["egress"] = egress
            self._make("NetworkPolicy", f"{RELEASE}-{name}", name, opts, space=space, spec=policy)

    def _account(self, name: str, grants: Sequence[Grant], opts: pulumi.ResourceOptions, space: Space) -> None:
        account = object_name(name)
        self._make("ServiceAccount", account, name, opts, space=space, automountServiceAccountToken=False)
        if not grants:
            return
        rules = [rule for grant in grants for rule in RULES[grant]]
        role = self._make("Role", account, name, opts, space=space, rules=rules)
        self._make(
            "RoleBinding",
            account,
            name,
            pulumi.ResourceOptions(parent=opts.parent, depends_on=[role]),
            space=space,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
            subjects=[{"kind": "ServiceAccount", "name": account, "namespace": space.ready}],
        )

    def _make(
        self,
        kind: str,
        name: str,
        resource: str,
        opts: pulumi.ResourceOptions,
        labels: Mapping[str, str] | None = None,
        *,
        space: Space | None = None,
        **fields: Any,
    ) -> Any:
        """An object, in the lab's own namespace unless another is given."""
        where = space or self._own
        metadata: dict[str, Any] = {"name": name, "labels": {**self._labels(resource), **(labels or {})}}
        if kind not in CLUSTER_WIDE:
            metadata["namespace"] = where.ready
        given = {_snake(key): value for key, value in fields.items()}
        ours = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(provider=self._provider))
        return KINDS[kind](f"{where.key}-{resource}" if where.key else resource, metadata=metadata, **given, opts=ours)

    def _labels(self, what: str) -> dict[str, str]:
        return {OWNER: owner(self._lab), "tier": "airflow", "release": self._release, "component": component_of(what)}

    def _image(self, image: Image) -> NodeImage:
        if image not in self._images:
            self._images[image] = NodeImage(
                f"{image}-image",
                image,
                self._source,
                self._cluster.kubeconfig,
                self._cluster.nodes,
                self._users_images.get(image, ""),
            )
        return self._images[image]


def _secret(made: pulumi.CustomResource, name: str) -> dict[str, Any]:
    """A Secret as a volume of pods, which only start again when it is as it is to be."""
    there = pulumi.Output.all(name, made.id).apply(lambda seen: str(seen[0]))
    return {"secret": {"secretName": there, "defaultMode": 0o440}}


def _snake(name: str) -> str:
    """
    >>> _snake("roleRef")
    'role_ref'
    """
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
