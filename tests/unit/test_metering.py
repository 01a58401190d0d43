"""What a container uses, from both versions of control groups and from the metrics API."""

from __future__ import annotations

import pytest

from scenarios.metering import Reading, Sample, beside, duration, quantity, reading, sample

TWO = "100.5\nusage_usec 2500000\nuser_usec 1\nmemory 3000\nanon 5\ninactive_file 1000\n"
ONE = "100.5\nusage_nsec 2500000000\nmemory 3000\ninactive_file 7\ntotal_inactive_file 1000\n"


@pytest.mark.parametrize("text", [TWO, ONE])
def test_a_control_group_is_read_in_both_versions(text: str) -> None:
    assert sample(text) == Sample(100.5, 2.5, 2000)


def test_a_reading_is_of_one_container() -> None:
    containers = [
        {"name": "proxy", "usage": {"cpu": "1", "memory": "1Gi"}},
        {"name": "base", "usage": {"cpu": "399123456n", "memory": "120Mi"}},
    ]
    answer = {"timestamp": "1970-01-01T00:01:40Z", "window": "15.5s", "containers": containers}
    assert reading(answer) == Reading(100.0, 15.5, pytest.approx(0.399123456), 120 * 2**20)
    assert reading({**answer, "containers": []}) is None


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("15u", 15e-6), ("250m", 0.25), ("2", 2), ("3k", 3000), ("1.5Gi", 1.5 * 2**30)]
)
def test_a_quantity_has_its_unit(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "seconds"), [("15s", 15), ("14.763s", 14.763), ("1m0.5s", 60.5), ("900ms", 0.9)])
def test_a_window_is_a_duration_of_go(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


def test_a_reading_is_put_beside_what_was_used_in_its_time() -> None:
    samples = [Sample(at, cpu, at) for at, cpu in ((10, 0), (20, 0), (30, 4), (40, 8))]
    found = beside(Reading(35, 10, 0.41, 34), samples)
    assert found
    assert (found.counted_cpu, found.counted_memory) == (pytest.approx(0.4), 30)
    assert beside(Reading(41, 10, 0.4, 0), samples) is None
    assert beside(Reading(35, 26, 0.4, 0), samples) is None
    assert beside(Reading(35, 10, 0.4, 0), []) is None
