"""The connections of a process, as the kernel's tables have them."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator

import psutil
import pytest

from scenarios.machine import _address, connections, keeps, moving, resume, suspend


@pytest.fixture
def sleepers() -> Iterator[list[psutil.Process]]:
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    yield [psutil.Process(each.pid) for each in started]
    for each in started:
        each.kill()
        each.wait()


def test_what_ends_or_begins_while_a_service_is_stopped_does_not_matter(sleepers: list[psutil.Process]) -> None:
    main, ends, begins = sleepers
    seen = 0

    def parts() -> Iterator[psutil.Process]:
        nonlocal seen
        seen += 1
        yield main
        if seen == 1:
            yield ends
            ends.kill()
            ends.wait()
        else:
            yield begins

    assert suspend("it", parts) == [main, begins]
    assert moving([main, begins]) == []
    resume([main, begins])
    assert [each.split(" ", 1)[1] for each in moving([main, begins])] == ["sleep 600"] * 2


def test_own_sockets_are_seen_as_psutil_sees_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        seen = connections(psutil.Process())
        assert port in {each.port for each in seen if not each.remote}
        assert f"127.0.0.1:{port}" in {each.remote for each in seen}
        assert f"127.0.0.1:{client.getsockname()[1]}" in {each.local for each in seen}


def test_a_process_that_has_ended_has_none() -> None:
    process = psutil.Process()
    process._pid = 2**22 + 1
    with pytest.raises(psutil.NoSuchProcess):
        connections(process)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F:1F90", "127.0.0.1:8080"),
        ("0000000000000000FFFF00000100007F:0050", "127.0.0.1:80"),
        ("00000000000000000000000001000000:0050", "::1:80"),
    ],
)
def test_addresses_are_read(text: str, address: str) -> None:
    assert _address(text) == address


def test_who_takes_a_connection_only_to_end_it_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert keeps("127.0.0.1", port)
        listening.accept()[0].close()
        ends = threading.Thread(target=lambda: listening.accept()[0].close())
        ends.start()
        assert not keeps("127.0.0.1", port)
        ends.join()
    assert not keeps("127.0.0.1", port)
