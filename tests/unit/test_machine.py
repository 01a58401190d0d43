"""The connections of a process, as the kernel's tables have them."""

from __future__ import annotations

import socket

import psutil
import pytest

from scenarios.machine import _address, connections


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
