"""How it is told that a Docker daemon refuses something: one that a test plays, on a Unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from labs.daemon import daemon
from labs.errors import LabError

Answers = dict[str, tuple[int, object]]


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: Answers


class Handler(BaseHTTPRequestHandler):
    """Answers by the end of the path; a status of 0 is the end of the connection."""

    server: Server

    def do_GET(self) -> None:
        status, body = next(each for path, each in self.server.answers.items() if self.path.endswith(path))
        if status:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        self.close_connection = True

    def address_string(self) -> str:
        return "nobody"

    def log_message(self, *_given: object) -> None:
        """Say nothing."""


@pytest.fixture
def playing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answers], None]]:
    """`playing(answers)`: what the daemon answers from now on."""
    with Server(str(tmp_path / "docker.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        yield lambda answers: setattr(server, "answers", answers)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((404, {"message": "No such container: lab"}), r"asked for \(No such container: lab\); `./lab doctor` says"),
        ((500, {"message": "no space left on device"}), "no space left on device"),
        ((0, None), "Connection aborted"),
    ],
)
def test_what_the_daemon_refuses_is_one_sentence(
    playing: Callable[[Answers], None], answer: tuple[int, object], sentence: str
) -> None:
    playing({"/version": (200, {"ApiVersion": "1.41"}), "/json": answer})
    with pytest.raises(LabError, match=sentence) as told, daemon() as client:
        client.containers.get("lab")
    assert "\n" not in str(told.value)
