"""The Kubernetes API of one cluster, or one sentence that says why it cannot be used."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import urllib3
import yaml

from labs.errors import LabError

OWNER = "airflow-executor-labs/lab"
"""Label of everything of a lab: `CHECKOUT` and the lab's name."""

MANAGER = "airflow-executor-labs"
"""The field manager of what is applied. https://kubernetes.io/docs/reference/using-api/server-side-apply/"""

CONNECTIONS = 16
"""Requests at once: each resource of a lab asks in a thread of its own, and a connection is used again."""

TIMEOUT = (10, 60)
"""Seconds to connect, and without an answer, until a request has failed."""

RETRIES = urllib3.Retry(4, backoff_factor=0.25)
"""A connection that breaks is tried again after 0, 0.5, 1 and 2 s: a busy API server ends some in their handshake."""

Object = dict[str, Any]
"""A Kubernetes object, or a list of them, as JSON has it."""


class Refused(LabError):
    """The API server said no.

    Attributes:
        status: HTTP status.
        said: its own words.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"the Kubernetes API refused ({status}): {said}")
        self.status, self.said = status, said


class Unreachable(LabError):
    """A cluster is not named, or does not answer, or cannot show that it is the one."""


class Cluster:
    """JSON requests to a cluster's API; from many threads at once.

    Args:
        kubeconfig: the text of a kubeconfig file, whose current context counts.

    Raises:
        Unreachable: that text leads to no cluster.
    """

    def __init__(self, kubeconfig: str) -> None:
        from kubernetes.client import Configuration  # the package takes a second to import
        from kubernetes.config import ConfigException
        from kubernetes.config.kube_config import new_client_from_config_dict

        settings = Configuration()
        settings.connection_pool_maxsize, settings.retries = CONNECTIONS, RETRIES
        try:
            self._client = new_client_from_config_dict(
                yaml.safe_load(kubeconfig), persist_config=False, client_configuration=settings
            )
        except (ConfigException, yaml.YAMLError, TypeError, AttributeError) as error:
            raise Unreachable(
                f"the kubeconfig leads to no cluster ({error}); check it with `kubectl cluster-info`"
            ) from error
        self._kinds: dict[str, dict[str, Object]] = {}
        self._lock, self._turns = threading.Lock(), threading.Semaphore(CONNECTIONS)

    def request(
        self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json", **query: Any
    ) -> Object:
        """The answer as JSON.

        Args:
            kind: content type of `body`.

        Raises:
            Refused: the API server said no.
            Unreachable: it does not answer.
        """
        answer: Object = json.loads(self.text(method, path, body, kind=kind, **query))
        return answer

    def text(
        self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json", **query: Any
    ) -> str:
        """The answer as text; see `request`."""
        with self._turns:
            return str(self._open(method, path, body, kind, query).data.decode(errors="replace"))

    def lines(self, path: str, **query: Any) -> Iterator[str]:
        """The lines of an answer that goes on, such as a log that is followed, each as soon as it is whole."""
        rest = b""
        for chunk in self._open("GET", path, None, "application/json", query).stream():
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") + "\n" for line in whole)
        if rest:
            yield rest.decode(errors="replace")

    def _open(self, method: str, path: str, body: Object | None, kind: str, query: Mapping[str, Any]) -> Any:
        from kubernetes.client import ApiException

        follows = bool(query.get("follow") or query.get("watch"))
        try:
            return self._client.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": kind},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(TIMEOUT[0], None) if follows else TIMEOUT,
            )
        except ApiException as error:
            if not error.status:
                raise Unreachable(f"the Kubernetes API gives no safe connection: {error.reason}") from error
            raise Refused(error.status, _said(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            host, why = self._client.configuration.host, type(getattr(error, "reason", error)).__name__
            raise Unreachable(
                f"the Kubernetes API at {host} does not answer ({why}); check that the cluster runs"
            ) from error

    def found(self, path: str) -> Object | None:
        """What is there; None where nothing is."""
        try:
            return self.request("GET", path)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: Any) -> list[Object]:
        """All objects below a path that a query selects."""
        listed: list[Object] = self.request("GET", path, **query).get("items", [])
        return listed

    def path(self, api_version: str, kind: str, name: str = "", namespace: str = "") -> str:
        """Where an object is, or without a name all of its kind.

        Raises:
            Refused: the cluster has no such kind (404).
        """
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        known = self._known(root, kind)
        middle = f"/namespaces/{namespace}" if known["namespaced"] and namespace else ""
        return f"{root}{middle}/{known['name']}" + (f"/{name}" if name else "")

    def _known(self, root: str, kind: str) -> Object:
        with self._lock:
            kinds = self._kinds.get(root, {})
        if kind not in kinds:  # that of a custom resource may have come just now
            listed = self.request("GET", root)["resources"]
            kinds = {each["kind"]: each for each in listed if "/" not in each["name"]}
            with self._lock:
                self._kinds[root] = kinds
        if kind not in kinds:
            raise Refused(404, f"the cluster knows no {kind} in {root}")
        return kinds[kind]

    def version(self) -> tuple[int, int]:
        """Major and minor version of the API server."""
        answer = self.request("GET", "/version")
        return int(answer["major"]), int(answer["minor"].rstrip("+"))

    def may(self, verb: str, resource: str, namespace: str = "", group: str = "") -> bool:
        """Whether this user may do that."""
        asked = {"verb": verb, "resource": resource, "namespace": namespace, "group": group}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = self.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer["status"]["allowed"])


@cache
def cluster(kubeconfig: str) -> Cluster:
    """One client for each kubeconfig: its connections are used again."""
    return Cluster(kubeconfig)


def _said(error: Any) -> str:
    try:
        answer: Mapping[str, Any] = json.loads(error.body or b"")
        return str(answer["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def last_lines(api: Cluster, namespace: str, pod: str, container: str, count: int = 15, **query: Any) -> str:
    """The last lines of a container's log; what the API says instead where there is none."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
    try:
        return api.text("GET", path, container=container, tailLines=count, **query).strip()
    except LabError as error:
        return str(error)


def events(api: Cluster, namespace: str, name: str) -> list[str]:
    """What Kubernetes says of an object, oldest first, as `Reason: message`."""
    found = api.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}")
    found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return [f"{event.get('reason')}: {event.get('message')}" for event in found]


def plight(api: Cluster, pod: Object) -> str:
    """Why a pod does not do its work, in one line and with its own events; "" where nothing is wrong."""
    status, metadata = pod.get("status", {}), pod["metadata"]
    said = []
    for each in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        waiting, ended = each["state"].get("waiting"), each["state"].get("terminated")
        ended = ended or each.get("lastState", {}).get("terminated")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            said.append(f"{each['name']}: {waiting['reason']} {waiting.get('message', '')}".strip())
        if ended and ended.get("exitCode"):
            said.append(f"{each['name']} ended with {ended['exitCode']} ({ended.get('reason')})")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said.append(f"{condition.get('reason')}: {condition.get('message')}")
    if not said:
        return ""
    told = events(api, metadata["namespace"], metadata["name"])[-4:]
    return f"pod {metadata['name']}: " + "; ".join([*said, *told])
