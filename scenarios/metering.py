"""What a container uses: as metrics-server reports it, and as the kernel counts it in the container's control group.

Sources: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/,
https://docs.kernel.org/admin-guide/cgroup-v2.html and, for version 1,
https://docs.kernel.org/admin-guide/cgroup-v1/cpuacct.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from labs.errors import LabError
from labs.waiting import until
from scenarios.pods import Namespace, execute, moment

if TYPE_CHECKING:
    from labs.cluster import Object

UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
"""https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""

SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3}

LOOK = """
date +%s.%N
cd /sys/fs/cgroup
cat cpu.stat 2>/dev/null || echo usage_nsec "$(cat cpuacct/cpuacct.usage)"
echo memory "$(cat memory.current 2>/dev/null || cat memory/memory.usage_in_bytes)"
cat memory.stat 2>/dev/null || cat memory/memory.stat
"""
"""Prints the time, then names with values of a container's control group, of version 2 or 1."""


@dataclass(frozen=True)
class Sample:
    """One look at a control group.

    Attributes:
        at: by the node's clock, epoch seconds.
        cpu: seconds of CPU time so far.
        memory: bytes, without files that nobody has used for a while: the working set.
    """

    at: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Reading:
    """What metrics-server says of a container.

    Attributes:
        at: end of the time it is about, epoch seconds.
        seconds: how long that is.
        cpu: CPUs used, on average over that time.
        memory: bytes at its end.
    """

    at: float
    seconds: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Metered:
    """A reading, beside what the kernel has counted in the same time."""

    seconds: float
    cpu: float
    counted_cpu: float
    memory: float
    counted_memory: float


def quantity(text: str) -> float:
    """
    >>> quantity("250m"), quantity("128Ki"), quantity("2")
    (0.25, 131072.0, 2.0)
    """
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def duration(text: str) -> float:
    """Seconds of a duration as Go writes it.

    >>> duration("1m2.5s")
    62.5
    """
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))


def sample(text: str) -> Sample:
    """What `LOOK` has printed."""
    at, *lines = text.split("\n")
    values = dict(line.split() for line in lines if line.strip())
    cpu = int(values["usage_usec"]) / 1e6 if "usage_usec" in values else int(values["usage_nsec"]) / 1e9
    idle = values.get("total_inactive_file", values["inactive_file"])
    return Sample(float(at), cpu, int(values["memory"]) - int(idle))


def reading(answer: Object, container: str = "base") -> Reading | None:
    """What an answer of the metrics API has of a container of a pod."""
    for each in answer["containers"]:
        if each["name"] == container:
            use = each["usage"]
            at, seconds = moment(answer["timestamp"]), duration(answer["window"])
            return Reading(at, seconds, quantity(use["cpu"]), quantity(use["memory"]))
    return None


def beside(found: Reading, samples: Sequence[Sample]) -> Metered | None:
    """A reading beside the samples of its time; None where they do not span it."""
    began = found.at - found.seconds
    if not samples or began < samples[0].at or found.at > samples[-1].at:
        return None
    used = _cpu_at(samples, found.at) - _cpu_at(samples, began)
    near = min(samples, key=lambda each: abs(each.at - found.at))
    return Metered(found.seconds, found.cpu, used / found.seconds, found.memory, near.memory)


def _cpu_at(samples: Sequence[Sample], at: float) -> float:
    """CPU time at a moment between two samples."""
    before, after = next((a, b) for a, b in pairwise(samples) if a.at <= at <= b.at)
    share = (at - before.at) / (after.at - before.at)
    return before.cpu + share * (after.cpu - before.cpu)


def metered(namespace: Namespace, pod: str, readings: int, timeout: float = 120.0) -> list[Metered]:
    """Look at the container `base` of a running pod until there are so many readings to put beside what it used."""
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace.name}/pods/{pod}"
    samples: list[Sample] = []
    seen: dict[float, Reading] = {}

    def probe() -> tuple[list[Metered] | None, str]:
        done = execute(namespace, pod, "base", ["/bin/sh", "-c", LOOK])
        if done.returncode:
            raise LabError(f"the control group of pod {pod} cannot be read: {done.stderr.strip()}")
        samples.append(sample(done.stdout))
        answer = namespace.api.found(path)
        found = reading(answer) if answer else None
        if found:
            seen[found.at] = found
        both = [each for each in (beside(one, samples) for one in seen.values()) if each]
        return (both if len(both) >= readings else None), f"{len(seen)} readings, {len(both)} of them from start to end"

    return until(probe, what=f"{readings} readings of pod {pod}", timeout=timeout, interval=2)
