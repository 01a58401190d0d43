"""The client of a cluster's API, against a server that answers as one."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from labs.cluster import RETRIES, Cluster, Refused, Unreachable, events, last_lines, plight


@dataclass
class Server:
    """What it answers by path, and what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, list[str]], str, Any]] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def cluster(self) -> Cluster:
        values = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "t",
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "clusters": [{"name": "t", "cluster": {"server": f"{self.scheme}://127.0.0.1:{self.port}"}}],
            "users": [{"name": "t", "user": {"token": "hidden"}}],
        }
        return Cluster(yaml.safe_dump(values))


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            kind = str(self.headers["Content-Type"])
            found.asked.append((self.command, url.path, parse_qs(url.query), kind, body))
            status, content = found.answers.get(url.path, (404, {"message": f"{url.path} not found"}))
            raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        found.port = http_server.server_port
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            http_server.shutdown()
            thread.join()


APPS = {
    "resources": [
        {"name": "deployments", "kind": "Deployment", "namespaced": True},
        {"name": "deployments/scale", "kind": "Scale"},
    ]
}


def test_where_an_object_is_the_cluster_says_itself_once(server: Server) -> None:
    server.answers["/apis/apps/v1"] = (200, APPS)
    api = server.cluster
    assert api.path("apps/v1", "Deployment", "a", "ns") == "/apis/apps/v1/namespaces/ns/deployments/a"
    assert api.path("apps/v1", "Deployment", namespace="ns") == "/apis/apps/v1/namespaces/ns/deployments"
    assert len(server.asked) == 1
    with pytest.raises(Refused, match="knows no Widget in /apis/apps/v1") as refused:
        api.path("apps/v1", "Widget")
    assert refused.value.status == 404


def test_what_is_applied_is_sent_as_server_side_apply(server: Server) -> None:
    server.answers["/x"] = (200, {"metadata": {}})
    server.cluster.request("PATCH", "/x", {"a": 1}, kind="application/apply-patch+yaml", fieldManager="m", force="true")
    assert server.asked == [
        ("PATCH", "/x", {"fieldManager": ["m"], "force": ["true"]}, "application/apply-patch+yaml", {"a": 1})
    ]


def test_what_it_refuses_is_told_in_its_own_words(server: Server) -> None:
    server.answers["/x"] = (403, {"message": 'pods is forbidden: User "u" cannot list'})
    with pytest.raises(Refused, match=r"refused \(403\): pods is forbidden: User"):
        server.cluster.request("GET", "/x")
    assert server.cluster.found("/nothing") is None
    with pytest.raises(Refused):
        server.cluster.found("/x")


def test_a_version_and_rights_are_read(server: Server) -> None:
    server.answers["/version"] = (200, {"major": "1", "minor": "34+"})
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    server.answers[review] = (201, {"status": {"allowed": True}})
    assert server.cluster.version() == (1, 34)
    assert server.cluster.may("create", "namespaces")
    assert server.asked[-1][4]["spec"]["resourceAttributes"]["verb"] == "create"


def test_a_connection_that_breaks_in_its_handshake_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    again = RETRIES.new(backoff_factor=0)
    monkeypatch.setattr("labs.cluster.RETRIES", again)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as pool:
        asked = pool.submit(Server(port=listening.getsockname()[1], scheme="https").cluster.version)
        for _ in range(1 + int(again.total or 0)):
            listening.accept()[0].close()
        with pytest.raises(Unreachable, match=r"https://.* does not answer \((SSL|Protocol)Error\)"):
            asked.result()


def test_a_cluster_that_does_not_answer_is_told() -> None:
    with pytest.raises(Unreachable, match=r"the Kubernetes API at http://127\.0\.0\.1:1 does not answer"):
        Server(port=1).cluster.version()


def test_a_text_that_is_no_kubeconfig_is_told() -> None:
    with pytest.raises(Unreachable, match="the kubeconfig leads to no cluster"):
        Cluster("just words")


def test_a_log_is_text_and_its_lines_come_as_they_are(server: Server) -> None:
    path = "/api/v1/namespaces/ns/pods/p/log"
    server.answers[path] = (200, "one\ntwo\n")
    assert last_lines(server.cluster, "ns", "p", "base") == "one\ntwo"
    assert server.asked[-1][2] == {"container": ["base"], "tailLines": ["15"]}
    assert list(server.cluster.lines(path, follow="true")) == ["one\n", "two\n"]
    long = "a" + 50000 * "é"  # comes in parts, of which one ends within a letter
    server.answers[path] = (200, f"{long}\nrest")
    assert list(server.cluster.lines(path, follow="true")) == [f"{long}\n", "rest"]
    assert "not found" in last_lines(server.cluster, "ns", "gone", "base")


def test_a_pods_plight_has_its_own_events_oldest_first(server: Server) -> None:
    items = [
        {"reason": "BackOff", "message": "again", "lastTimestamp": "2026-01-01T00:00:02Z"},
        {"reason": "Failed", "message": "no such image", "lastTimestamp": "2026-01-01T00:00:01Z"},
    ]
    server.answers["/api/v1/namespaces/ns/events"] = (200, {"items": items})
    api = server.cluster
    assert events(api, "ns", "p") == ["Failed: no such image", "BackOff: again"]
    assert server.asked[-1][2] == {"fieldSelector": ["involvedObject.name=p"]}
    pod: dict[str, Any] = {"metadata": {"name": "p", "namespace": "ns"}, "status": {"conditions": []}}
    assert plight(api, pod) == ""
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    ]
    assert plight(api, pod) == "pod p: Unschedulable: 0/3 nodes; Failed: no such image; BackOff: again"
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod["status"] = {
        "containerStatuses": [
            {"name": "base", "state": waiting},
            {"name": "side", "state": {"running": {}}, "lastState": ended},
        ]
    }
    assert plight(api, pod).startswith("pod p: side ended with 137 (OOMKilled); ")
