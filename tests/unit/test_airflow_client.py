"""Protocol edge cases of the API access, against a stand-in server; the real server is met by the scenarios."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from labs import airflow as module
from labs.airflow import Airflow, AirflowError
from labs.runs import Run, TaskInstance
from labs.waiting import WaitTimeout

Answer = tuple[int, Any]
RUN = Run("d", "r1", "queued")


@dataclass
class Server:
    """A stand-in for the API server: `answers` gives the reply to `(method, path)`, in turn or again and again.

    Attributes:
        token: the one that is accepted; a login hands it out.
        refusal: the status for any other token.
        seen: method and path of each request, logins included.
    """

    answers: dict[tuple[str, str], list[Answer] | Callable[[dict[str, list[str]]], Answer]]
    token: str = "token-1"
    password: str = "right"
    refusal: int = 401
    seen: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    hang: threading.Event | None = None
    url: str = ""

    def reply(self, method: str, target: str, body: bytes, authorization: str) -> Answer:
        parts = urlsplit(target)
        self.seen.append((method, parts.path))
        self.bodies.append(json.loads(body) if body else None)
        if self.hang:
            self.hang.wait(10)
        if parts.path == "/auth/token":
            right = self.bodies[-1]["password"] == self.password
            return (201, {"access_token": self.token}) if right else (401, {"detail": "Invalid credentials"})
        if authorization != f"Bearer {self.token}" and parts.path != "/api/v2/monitor/health":
            return self.refusal, {"detail": "Invalid JWT token"}
        answers = self.answers[method, parts.path]
        if callable(answers):
            return answers(parse_qs(parts.query))
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running = []

    def serve(**answers: Any) -> Server:
        server = Server({tuple(key.split(" ")): value for key, value in answers.pop("answers", {}).items()}, **answers)

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, data = server.reply(self.command, self.path, body, self.headers.get("Authorization", ""))
                payload = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        running.append((server, http))
        return server

    yield serve
    for server, http in running:
        if server.hang:
            server.hang.set()
        http.shutdown()
        http.server_close()


def a_run(state: str = "success", run_id: str = "r1") -> dict[str, Any]:
    return {
        "dag_run_id": run_id, "dag_id": "d", "dag_display_name": "d", "state": state, "run_type": "manual",
        "run_after": "2026-01-01T12:00:00Z", "dag_versions": [], "queued_at": "2026-01-01T12:00:00.5Z",
    }  # fmt: skip


def a_task(n: int = 0, state: str | None = "success", try_number: int = 1) -> dict[str, Any]:
    return {
        "id": f"00000000-0000-0000-0000-{n:012}", "task_id": "t", "dag_id": "d", "dag_run_id": "r1", "map_index": n,
        "run_after": "2026-01-01T12:00:00Z", "state": state, "try_number": try_number, "max_tries": 0,
        "task_display_name": "t", "dag_display_name": "d", "pool": "default_pool", "pool_slots": 1,
        "executor_config": "{}", "hostname": "vm", "pid": 42, "queue": "default",
        "start_date": "2026-01-01T12:00:01Z", "end_date": None,
    }  # fmt: skip


HEALTHY = {"metadatabase": {"status": "healthy"}, "scheduler": {}, "triggerer": {}, "dag_processor": {}}

THE_RUN = "GET /api/v2/dags/d/dagRuns/r1"
THE_TASKS = f"{THE_RUN}/taskInstances"


def client(server: Server, patience: float = 5) -> Airflow:
    return Airflow(server.url, "admin", "right", patience=patience)


def test_it_logs_in_when_first_needed_and_only_once(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_RUN: [(200, a_run())]})
    airflow = client(server)
    assert server.seen == []
    assert airflow.run(RUN).state == airflow.run(RUN).state == "success"
    assert server.seen.count(("POST", "/auth/token")) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_of_an_earlier_instance_is_replaced(serve: Callable[..., Server], status: int) -> None:
    server = serve(answers={THE_RUN: [(200, a_run("running")), (200, a_run())]}, refusal=status)
    airflow = client(server)
    assert airflow.run(RUN).state == "running"
    server.token = "token-2"
    assert airflow.run(RUN).state == "success"
    assert server.seen.count(("POST", "/auth/token")) == 2


def test_what_is_forbidden_stays_forbidden(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_RUN: [(200, a_run()), (403, {"detail": "Forbidden"})]})
    airflow = client(server)
    airflow.run(RUN)
    with pytest.raises(AirflowError, match="answered 403 to get_dag_run: Forbidden") as refused:
        airflow.run(RUN)
    assert refused.value.status == 403
    assert [path for method, path in server.seen if method == "POST"] == ["/auth/token"] * 2


def test_a_wrong_password_is_one_sentence_without_the_password(serve: Callable[..., Server]) -> None:
    server = serve()
    with pytest.raises(AirflowError, match="answered 401 to the login of admin: Invalid credentials") as refused:
        Airflow(server.url, "admin", "wrong-word").run(RUN)
    assert "wrong-word" not in str(refused.value)
    assert len(server.seen) == 1


def test_not_found_is_told_at_once(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_RUN: [(404, {"detail": "The DagRun was not found"})]})
    with pytest.raises(AirflowError, match="The DagRun was not found") as refused:
        client(server).run(RUN)
    assert (refused.value.status, refused.value.transient) == (404, False)
    assert len(server.seen) == 2


def test_an_error_of_the_server_is_ridden_out(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_RUN: [(500, {}), (503, "busy"), (200, a_run())]})
    assert client(server).run(RUN).state == "success"


def test_patience_ends(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_RUN: [(500, {"detail": "database is gone"})]})
    with pytest.raises(AirflowError, match=r"waited 1 s for Airflow to answer get_dag_run; .*database is gone") as gone:
        client(server, patience=1).run(RUN)
    assert gone.value.transient


def test_nobody_there_is_one_sentence() -> None:
    airflow = Airflow("http://127.0.0.1:9", "admin", "x", patience=0)
    with pytest.raises(AirflowError, match=r"127.0.0.1:9 gave no answer .*refused") as gone:
        airflow.run(RUN)
    assert gone.value.transient
    with pytest.raises(AirflowError, match="gave no answer"):
        airflow.health()


def test_the_next_api_server_is_asked_at_once_when_one_is_away(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_RUN: [(200, a_run())], "GET /api/v2/monitor/health": [(200, HEALTHY)]})
    airflow = Airflow("http://127.0.0.1:9", "admin", "right", others=[server.url], patience=0)
    assert airflow.health()["metadatabase"].status == "healthy"
    assert airflow.run(RUN).state == "success"
    assert airflow.api_url == server.url


def test_what_a_server_may_have_seen_is_sent_to_the_next_only_by_who_repeats_it(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HTTP_TIMEOUT", (0.2, 0.2))
    first, second = serve(hang=threading.Event()), serve(answers={THE_RUN: [(200, a_run())]})
    airflow = Airflow(first.url, "admin", "right", others=[second.url], patience=0)
    with pytest.raises(AirflowError, match=f"{first.url} gave no answer"):
        airflow.run(RUN)
    assert second.seen == []
    assert airflow.run(RUN).state == "success"


def test_a_load_balancer_without_a_server_is_no_answer_of_airflow(serve: Callable[..., Server]) -> None:
    server = serve(answers={"GET /api/v2/monitor/health": [(503, "no server is available")]})
    with pytest.raises(AirflowError, match="answered 503 to get_health") as refused:
        client(server).health()
    assert refused.value.transient


def test_a_request_without_an_answer_ends(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HTTP_TIMEOUT", (0.2, 0.2))
    server = serve(hang=threading.Event())
    begun = time.monotonic()
    with pytest.raises(AirflowError, match=r"gave no answer .*timed out"):
        client(server, patience=0).run(RUN)
    assert time.monotonic() - begun < 2


def test_a_trigger_whose_answer_was_lost_makes_no_second_run(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.DAGApi, "patch_dag", lambda *_, **__: None)
    server = serve(answers={"POST /api/v2/dags/d/dagRuns": [(500, {}), (409, {"detail": "exists"})]})
    monkeypatch.setattr(Airflow, "run", lambda _, run: run)
    run = client(server).trigger("d", {"x": 1})
    posts = [body for (method, path), body in zip(server.seen, server.bodies, strict=True) if "dagRuns" in path]
    assert len(posts) == 2
    assert {body["dag_run_id"] for body in posts} == {run.run_id}
    assert posts[0]["conf"] == {"x": 1}
    assert posts[0]["logical_date"] is None


def test_all_pages_of_task_instances_are_read(serve: Callable[..., Server]) -> None:
    everything = [a_task(n) for n in range(250)]

    def page(query: dict[str, list[str]]) -> Answer:
        start, size = int(query["offset"][0]), min(int(query["limit"][0]), 100)
        return 200, {"task_instances": everything[start : start + size], "total_entries": 250}

    found = client(serve(answers={THE_TASKS: page})).task_instances(RUN)
    assert [ti.map_index for ti in found] == list(range(250))
    assert (found[0].pid, found[0].hostname, found[0].label) == (42, "vm", "t[0]")


def logs(*events: Any) -> Answer:
    return 200, {"content": list(events), "continuation_token": None}


THE_LOG = f"{THE_TASKS}/t/logs/1"
BOOM = {
    "timestamp": "2026-01-01T12:00:00Z", "level": "error", "event": "Task failed",
    "error_detail": [{"exc_type": "RuntimeError", "exc_value": "boom", "frames": []}],
}  # fmt: skip


def test_a_log_is_text_with_the_exception(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_LOG: [logs({"event": "::group::x"}, {"event": "hello"}, BOOM)]})
    text = client(server).log(TaskInstance("d", "r1", "t", 0, 1, "failed"))
    assert text == "hello\n2026-01-01T12:00:00Z error Task failed\nRuntimeError: boom"


def test_a_log_that_is_not_there_is_an_error(serve: Callable[..., Server]) -> None:
    server = serve(answers={THE_LOG: [(404, {"detail": "TaskInstance not found"})]})
    with pytest.raises(AirflowError, match="404 to _log_messages: TaskInstance not found"):
        client(server).log(TaskInstance("d", "r1", "t", 0, 1, "failed"))


def test_a_wait_that_times_out_tells_states_and_the_last_log_lines(serve: Callable[..., Server]) -> None:
    tasks = {"task_instances": [a_task(0), a_task(1, "failed"), a_task(2, None, 0)], "total_entries": 3}
    server = serve(answers={THE_RUN: [(200, a_run("running"))], THE_TASKS: [(200, tasks)], THE_LOG: [logs(BOOM)]})
    with pytest.raises(WaitTimeout) as late:
        client(server).wait(RUN, timeout=0.5)
    message = str(late.value)
    assert "run r1 of d to be failed or success; last state: running" in message
    assert "1 failed, 1 no state yet, 1 success" in message
    assert "t[1] (try 1): failed on vm" in message
    assert "RuntimeError: boom" in message


def test_a_wait_rides_out_a_restart_and_samples_on_the_way(serve: Callable[..., Server]) -> None:
    tasks = {"task_instances": [a_task(0, "running")], "total_entries": 1}
    runs = [(200, a_run("running")), (500, {}), (200, a_run("running")), (200, a_run("success"))]
    server = serve(answers={THE_RUN: runs, THE_TASKS: [(200, tasks)]})
    samples: list[int] = []
    run = client(server).wait(RUN, 10, watch=lambda found: samples.append(len(found)))
    assert (run.state, samples) == ("success", [1, 1, 1])


def test_a_wait_for_success_ends_when_the_run_has_failed(serve: Callable[..., Server]) -> None:
    tasks = {"task_instances": [], "total_entries": 0}
    server = serve(answers={THE_RUN: [(200, a_run("failed"))], THE_TASKS: [(200, tasks)]})
    with pytest.raises(AirflowError, match="ended as failed, not as success"):
        client(server).wait(RUN, 60, states={"success"})


THE_DAG, ERRORS = "GET /api/v2/dags/d", "GET /api/v2/importErrors"
FAILURE = {
    "import_error_id": 1, "filename": "sub/35_02_01_x.py", "bundle_name": "dags-folder",
    "stack_trace": "ModuleNotFoundError: No module named 'nothing'", "timestamp": "2026-01-01T12:00:00Z",
}  # fmt: skip


def test_an_import_error_ends_the_wait_for_its_dag_with_airflows_own_words(serve: Callable[..., Server]) -> None:
    errors = {"import_errors": [FAILURE], "total_entries": 1}
    server = serve(answers={THE_DAG: [(404, {"detail": "no such DAG"})], ERRORS: [(200, errors)]})
    with pytest.raises(AirflowError, match=r"cannot import sub/35_02_01_x.py:\nModuleNotFoundError"):
        client(server).wait_for_dag("d", 60, file="35_02_01_x.py")


def test_a_dag_that_never_comes_shows_all_import_errors(serve: Callable[..., Server]) -> None:
    errors = {"import_errors": [FAILURE], "total_entries": 1}
    server = serve(answers={THE_DAG: [(404, {"detail": "no such DAG"})], ERRORS: [(200, errors)]})
    with pytest.raises(WaitTimeout, match=r"DAG d to be parsed; last state: not parsed yet\nsub/35_02_01_x.py"):
        client(server).wait_for_dag("d", 0.2, file="another.py")


def test_health_needs_no_login(serve: Callable[..., Server]) -> None:
    body = {
        "metadatabase": {"status": "healthy"},
        "scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-01-01T12:00:00Z"},
        "triggerer": {"status": None, "latest_triggerer_heartbeat": None},
        "dag_processor": None,
    }
    server = serve(answers={"GET /api/v2/monitor/health": [(200, body)]})
    health = client(server).health()
    assert server.seen == [("GET", "/api/v2/monitor/health")]
    assert {name: part.status for name, part in health.items()} == {
        "metadatabase": "healthy", "scheduler": "unhealthy", "triggerer": None,
    }  # fmt: skip
    assert health["scheduler"].heartbeat is not None
