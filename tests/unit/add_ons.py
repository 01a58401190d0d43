"""A cluster in memory, as the tests of its add-ons look at it: what is applied to it is there at once."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from labs.cluster import Object, Refused

COUNTS = ("observedGeneration", "updatedReplicas", "availableReplicas", "replicas")

CONDITIONS = ("Available", "Established")


@dataclass
class Api:
    """A cluster whose objects are ready.

    Attributes:
        marks: paths that the code under test names, by the kind or name of the object; others are `/kind/name`.
        refuses: a kind that is forbidden.
    """

    marks: dict[str, str]
    refuses: str = ""
    there: dict[str, Object] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)

    def path(self, _version: str, kind: str, name: str = "", _namespace: str = "") -> str:
        return self.marks.get(name) or self.marks.get(kind) or f"/{kind}/{name}"

    def found(self, path: str) -> Object | None:
        return copy.deepcopy(self.there.get(path))

    def items(self, path: str, **_: Any) -> list[Object]:
        return [{"endpoints": [{"conditions": {"ready": True}}]}] if "endpointslices" in path else []

    def request(self, method: str, path: str, body: Object | None = None, **_: Any) -> Object:
        self.calls.append((method, path))
        if method == "DELETE":
            self.there.pop(path, None)
            return {}
        assert body is not None
        if body["kind"] == self.refuses:
            raise Refused(403, "forbidden")
        conditions = [{"type": each, "status": "True"} for each in CONDITIONS]
        status = {**dict.fromkeys(COUNTS, 1), "conditions": conditions}
        self.there[path] = {**body, "metadata": {**body["metadata"], "uid": path, "generation": 1}, "status": status}
        return copy.deepcopy(self.there[path])

    def done(self, method: str) -> list[str]:
        return [path for each, path in self.calls if each == method]
