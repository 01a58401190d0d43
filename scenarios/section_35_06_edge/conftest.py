"""What several verifiers of the section look at: the requests that the API server has answered."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

REQUEST = re.compile(r"\[http\.access\].* method=(?P<method>\w+) path=(?P<path>\S*) .*status_code=(?P<status>\d+)")


@dataclass(frozen=True)
class Request:
    """One request that the API server has answered."""

    method: str
    path: str
    status: int


@pytest.fixture(scope="session")
def requests_since(service_log: Callable[[str], Callable[[], str]]) -> Callable[[], Callable[[], list[Request]]]:
    """`read = requests_since()`: begin here to read the API server's access log; `read()` gives the requests since."""

    def requests_since() -> Callable[[], list[Request]]:
        said = service_log("api-server")
        return lambda: [Request(m["method"], m["path"], int(m["status"])) for m in REQUEST.finditer(said())]

    return requests_since
