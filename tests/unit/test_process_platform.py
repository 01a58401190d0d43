"""The process platform's providers on a real supervisord, with small programs instead of Airflow."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.clusters.kind import _free_ports
from components.platforms.process import closed_ports
from components.platforms.process.resources import (
    _FolderProvider,
    _HomeProvider,
    _PortProvider,
    _ProgramProvider,
    probe,
)
from components.platforms.process.supervisor import Supervisor
from components.platforms.process.users import DYNAMIC_USERS, own_user
from labs import processes
from labs.errors import LabError
from labs.paths import reachable_by_others
from labs.waiting import until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A lab directory with a supervisord."""
    path = tmp_path / "state" / "lab" / "run"
    provider = _HomeProvider()
    provider.create({"home": str(path)})
    yield path
    provider.delete("", {"home": str(path)})
    assert not path.exists()
    assert not processes.marked(str(path))


def program(home: Path, command: list[str], **changes: Any) -> dict[str, Any]:
    """Inputs of a program."""
    return {
        "home": str(home),
        "name": "probe",
        "command": command,
        "environment": {"PLAIN": "it's 100% plain"},
        "secrets": {"HIDDEN": 'a "quoted" $secret'},
        "path": os.environ["PATH"],
        "health": {},
        "stop": {"signal": "TERM", "grace": 5},
        "job": False,
        "timeout": 20,
        **changes,
    }


def test_a_program_gets_its_environment_and_its_marks(home: Path) -> None:
    provider = _ProgramProvider()
    show = 'printf "%s|%s|" "$PLAIN" "$HIDDEN"; pwd; exec sleep 600'
    made = provider.create(program(home, ["sh", "-c", show], health={"log": r"\|/"}))
    assert made.outs
    assert f'it\'s 100% plain|a "quoted" $secret|{home}' in Path(made.outs["log"]).read_text()
    (running,) = processes.marked(str(home), "probe")
    assert "$secret" not in " ".join(running.cmdline())
    assert not (home / "programs" / "probe.sh").stat().st_mode & 0o077


def test_what_a_program_starts_cannot_connect_to_a_closed_port(home: Path) -> None:
    connect = """
import socket, sys
for port in sys.argv[1:]:
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
        print("accepted", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
    with socket.create_server(("127.0.0.1", 0)) as open_, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = [str(server.getsockname()[1]) for server in (open_, closed)]
        command = ["sh", "-c", '"$0" -c "$@"; exec sleep 603', sys.executable, connect, *ports]
        wanted = {"health": {"log": r"\w+\n\w+"}, "closed": ports[1:]}
        made = _ProgramProvider().create(program(home, command, **wanted))
    assert made.outs
    answers = Path(made.outs["log"]).read_text().split()
    assert answers == ["accepted", "PermissionError" if closed_ports.supported() else "accepted"]


def test_a_program_that_ends_is_started_again_without_what_it_left(home: Path) -> None:
    provider = _ProgramProvider()
    props = program(home, ["sh", "-c", "sleep 601 & exec sleep 602"])
    provider.create(props)
    before = {p.pid for p in processes.marked(str(home), "probe")}
    os.kill(Supervisor(home).info("probe")["pid"], signal.SIGKILL)

    def replaced() -> tuple[bool | None, str]:
        now = {p.pid for p in processes.marked(str(home), "probe")}
        state = Supervisor(home).info("probe")["statename"]
        return (True if len(now) == 2 and not now & before and state == "RUNNING" else None), f"{now}, {state}"

    until(replaced, what="both processes to be new ones", timeout=30)
    assert not provider.diff("", {**props}, props).changes


def test_a_program_that_dies_at_start_is_told_with_its_last_lines_and_taken_out(home: Path) -> None:
    with pytest.raises(LabError, match=r"probe ended while it started; last lines of .*\nno such thing"):
        _ProgramProvider().create(program(home, ["sh", "-c", "echo no such thing; exit 7"], health={"log": "never"}))
    assert not processes.marked(str(home), "probe")
    with pytest.raises(Exception, match="BAD_NAME"):
        Supervisor(home).info("probe")


def test_a_program_that_is_never_ready_is_told_with_the_condition(home: Path) -> None:
    props = program(home, ["sleep", "600"], health={"tcp": f"127.0.0.1:{_unused()}"}, timeout=0.6)
    with pytest.raises(
        LabError, match=r"waited 1 s for probe to be ready; last state: 127.0.0.1:\d+: Connection refused"
    ):
        _ProgramProvider().create(props)


def test_a_job_is_done_when_it_exits_with_0(home: Path) -> None:
    provider = _ProgramProvider()
    provider.create(program(home, ["true"], job=True))
    with pytest.raises(LabError, match=r"probe failed; last lines of .*\nbroken"):
        provider.create(program(home, ["sh", "-c", "echo broken; exit 3"], job=True))


def test_a_program_that_does_not_run_is_drift(home: Path) -> None:
    provider = _ProgramProvider()
    props = program(home, ["sleep", "600"])
    outputs = provider.create(props).outs
    assert outputs
    assert not provider.diff("", outputs, props).changes
    assert provider.diff("", outputs, {**props, "environment": {}}).changes
    with Supervisor(home).rpc() as rpc:
        rpc.stopProcess("probe")
    assert provider.diff("", outputs, props).changes


def test_a_program_gets_its_time_to_end_unless_the_whole_lab_goes_down(home: Path) -> None:
    provider = _ProgramProvider()
    ends = f'trap "sleep 3; touch {home}/ended; exit 0" TERM; while :; do sleep 0.1; done'
    props = program(home, ["sh", "-c", f"echo ready; {ends}"], health={"log": "ready"})
    provider.create(props)
    provider.delete("", props)
    assert (home / "ended").exists()
    (home / "ended").unlink()
    provider.create(props)
    begun = time.monotonic()
    with processes.going_down():
        provider.delete("", props)
    assert time.monotonic() - begun < 3
    assert not processes.marked(str(home), "probe")
    assert not (home / "ended").exists()


def test_a_killed_supervisord_is_replaced_and_its_programs_ended(home: Path) -> None:
    _ProgramProvider().create(program(home, ["sleep", "600"]))
    psutil.Process(int((home / "supervisord.pid").read_text())).kill()
    provider = _HomeProvider()
    until(lambda: (True if not Supervisor(home).alive() else None, "alive"), what="supervisord to be gone", timeout=10)
    assert provider.diff("", {"home": str(home)}, {"home": str(home)}).changes
    provider.update("", {}, {"home": str(home)})
    assert Supervisor(home).alive()
    assert not processes.marked(str(home), "probe")


def _unused() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`ports(home, key)`: the port that a lab gets, from a registry of this test's own."""
    monkeypatch.setattr("labs.ports.cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr("components.platforms.process.resources._taken", lambda _port: False)

    def port(home: Path, key: str, wanted: int | None = None) -> int:
        outputs = _PortProvider().create({"home": str(home), "key": key, "wanted": wanted}).outs
        assert outputs
        return int(outputs["port"])

    return port


@pytest.fixture
def homes(tmp_path: Path) -> list[Path]:
    """The directories of two labs of the same name in two checkouts."""
    found = [tmp_path / checkout / ".lab" / "local" / "run" for checkout in ("one", "two")]
    for home in found:
        home.mkdir(parents=True)
    return found


def test_ports_are_kept_and_given_once_across_checkouts(ports: Callable[..., int], homes: list[Path]) -> None:
    given = [ports(home, key) for home in homes for key in ("a", "b")]
    assert len(set(given)) == 4
    assert ports(homes[0], "a") == given[0]
    with pytest.raises(LabError, match=f"port {given[1]}, asked for c, is taken by another lab or service"):
        ports(homes[1], "c", given[1])
    with pytest.raises(LabError, match=f"port {given[1]}, asked for a, is taken by another lab or service"):
        ports(homes[0], "a", given[1])
    assert ports(homes[0], "a", given[0]) == ports(homes[0], "a") == given[0]
    assert not set(given) & set(_free_ports()), "a kind cluster takes the port of a lab that does not listen there yet"


def test_ports_are_free_again_without_their_lab(ports: Callable[..., int], homes: list[Path]) -> None:
    first, second = (ports(home, "a") for home in homes)
    _PortProvider().delete("", {"home": str(homes[0]), "key": "a"})
    assert ports(homes[1], "b", first) == first
    shutil.rmtree(homes[1])
    assert [ports(homes[0], key, port) for key, port in (("a", first), ("b", second))] == [first, second]


def test_a_registry_of_ports_that_cannot_be_read_is_written_anew(
    ports: Callable[..., int], homes: list[Path], tmp_path: Path
) -> None:
    given = ports(homes[0], "a")
    (tmp_path / "cache" / "ports.json").write_text('{"half": ')
    assert ports(homes[0], "a") == given


def test_a_folder_holds_its_links_and_private_files(tmp_path: Path) -> None:
    provider, (old, new) = _FolderProvider(), (tmp_path / "old", tmp_path / "new")
    for target in (old, new):
        target.mkdir()
    props = {"path": str(tmp_path / "folder"), "links": [str(old)], "files": {"secret": "text"}}
    provider.create(props)
    assert (tmp_path / "folder" / "secret").stat().st_mode & 0o777 == 0o600
    provider.update("", props, {**props, "links": [str(new)]})
    assert [path.name for path in (tmp_path / "folder").iterdir() if path.is_symlink()] == ["new"]
    provider.delete("", props)
    assert old.exists() and not (tmp_path / "folder").exists()


@pytest.fixture
def answering() -> Iterator[tuple[str, dict[str, Any]]]:
    """An HTTP server on loopback that answers with a mapping of the test's choice."""
    body: dict[str, Any] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", body
        server.shutdown()


def test_a_service_is_ready_when_it_says_that_all_is_healthy(answering: tuple[str, dict[str, Any]]) -> None:
    url, body = answering
    health = {"http": url, "healthy": ["metadatabase.status"]}
    body["metadatabase"] = {"status": "unhealthy"}
    assert probe(health, 0, "") == (False, "metadatabase.status is unhealthy")
    body["metadatabase"] = {"status": "healthy"}
    assert probe(health, 0, "") == (True, "healthy")


def test_the_probes_say_what_they_saw(tmp_path: Path) -> None:
    assert probe({"log": "worker .* ready"}, 0, "worker 1 is ready")[0]
    assert probe({"log": "worker .* ready"}, 0, "starting") == (False, "its log does not match worker .* ready yet")
    file = tmp_path / "registered"
    assert not probe({"file": str(file)}, 0, "")[0]
    file.touch()
    assert probe({"file": str(file)}, file.stat().st_mtime - 1, "")[0]
    assert not probe({"file": str(file)}, file.stat().st_mtime + 1, "")[0]


def test_socket_paths_stay_short_enough(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 80) / "run"
    assert len(str(Supervisor(deep).socket)) < 100
    assert Supervisor(tmp_path).sockets.parent == tmp_path or len(str(tmp_path)) > 70


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other user ids to give")
def test_services_of_root_get_user_ids_of_their_own() -> None:
    first, second = own_user("one#site-a"), own_user("one#site-b")
    assert first != second
    assert {first, second} <= set(DYNAMIC_USERS)


def test_a_closed_folder_on_the_way_is_seen(tmp_path: Path) -> None:
    inside = tmp_path / "closed" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    assert not reachable_by_others(inside)
