"""The report: everything found is in it, nothing secret is, and it stands alone."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from labs import verify
from labs.report import COMPARISON, write_report
from labs.report import topology as topology_module
from labs.report.markup import el, html, short
from labs.report.timeline import timeline
from labs.report.topology import topology
from labs.results import Claim, Result, Results
from labs.runs import TaskInstance

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
HOSTILE = "<script>alert('x')</script>&amp;\"\x1b[31m\x00"


def service(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "host": "local://", "endpoints": {}, **more}


def outputs(executors: list[str] | None = None, **services: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "lab": "local",
        "name": "local",
        "platform": "process",
        "engine": "embedded",
        "executors": executors or ["LocalExecutor"],
        "sections": ["35.1", "35.2"],
        "api_url": "http://127.0.0.1:28080",
        "admin_user": "admin",
        "admin_password": "hidden-word",
        "airflow_version": "3.3.2",
        "services": {
            "api-server": [service("api-server", endpoints={"http": "127.0.0.1:28080"})],
            "scheduler": [service("scheduler")],
            "dag-processor": [service("dag-processor")],
            "triggerer": [service("triggerer")],
            "metadata-database": [service("metadata-database", endpoints={"postgresql": "127.0.0.1:28432"})],
            **{role.replace("_", "-"): replicas for role, replicas in services.items()},
        },
        "paths": {"dags": "/labs/local/dags"},
        "options": {"core.parallelism": "4"},
    }


def task(name: str, start: float | None, end: float | None, **more: Any) -> TaskInstance:
    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else NOON + timedelta(seconds=seconds)

    values = {"hostname": "vm" if start is not None else "", "pid": 7 if start is not None else None, **more}
    return TaskInstance("d", "r", name, -1, 1, values.pop("state", "success"), queued=NOON, started=at(start),
                        ended=at(end), **values)  # fmt: skip


def result(name: str = "a", **more: Any) -> Result:
    return replace(
        Result(
            scenario=f"section_35_02_local/test_35_02_01_x.py::test_{name}",
            section="35.2",
            title="Tasks run `side by side`.",
            check=f"Point {name}.",
            dag="35_02_01_x",
            kind="dag",
            verdict="passed",
        ),
        **more,
    )


def results(*found: Result) -> Results:
    return Results("local", NOON, 75.0, {"system": "Linux", "cores": "2", "memory": "24 GiB"}, found)


class Page(HTMLParser):
    """What a browser would see: texts, tags, attribute values, and whether tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def report(tmp_path: Path, *found: Result, lab: dict[str, Any] | None = None) -> tuple[Page, ElementTree.Element]:
    html_path, junit_path = write_report(lab or outputs(), results(*found), tmp_path / "report")
    return Page(html_path.read_text()), ElementTree.parse(junit_path).getroot()


def test_the_header_says_what_was_verified(tmp_path: Path) -> None:
    page, _ = report(tmp_path, result())
    for word in ("local", "LocalExecutor", "process", "embedded", "3.3.2", "1 January 2026", "2 cores", "24 GiB"):
        assert word in page.text
    assert "core.parallelism = 4" in page.text


@pytest.mark.parametrize(
    ("verdicts", "headline"),
    [
        (["passed", "passed", "not applicable"], "All 2 checks passed, 1 not applicable."),
        (["passed", "unknown"], "1 of 2 checks could not be decided."),
        (["passed", "unknown", "failed"], "1 of 3 checks failed."),
        (["not applicable"], "Nothing was proven."),
        ([], "Nothing was proven."),
    ],
)
def test_the_headline_never_says_more_than_was_proven(tmp_path: Path, verdicts: list[Any], headline: str) -> None:
    page, _ = report(tmp_path, *(result(str(n), verdict=v) for n, v in enumerate(verdicts)))
    assert headline in page.text


def test_each_check_has_its_verdict_in_words_and_what_is_behind_it(tmp_path: Path) -> None:
    failed = result(
        "b",
        verdict="failed",
        message="more than two ran at once\nassert 3 <= 2",
        hint="look at `core.parallelism`",
        evidence=(
            ("most at once", 3),
            ("rows", [{"pid": 1, "host": "vm"}, {"pid": 2, "waited": 0.25}]),
            ("source", {"file": True, "environment": None}),
        ),
        logs={"scheduler": "last words of the scheduler"},
    )
    page, _ = report(tmp_path, result(), failed)
    for words in (
        "35.2 LocalExecutor", "35_02_01_x.py", "1 passed 1 failed", "more than two ran at once", "assert 3 <= 2",
        "Hint: look at core.parallelism", "most at once 3", "pid host waited", "0.25", "file yes", "environment none",
        "Last log lines of scheduler last words of the scheduler",
    ):  # fmt: skip
        assert words in page.text.replace(" .", ".").replace("  ", " "), words


def test_a_hint_is_for_those_who_need_one(tmp_path: Path) -> None:
    page, _ = report(tmp_path, result(hint="look there"))
    assert "look there" not in page.text


def test_sections_come_in_the_order_of_the_curriculum(tmp_path: Path) -> None:
    found = [result(s, section=s, scenario=f"{s}.py::a", title=f"title of {s}") for s in ("35.10", "35.9", "35.1")]
    fault = result("f", kind="fault", section="", scenario="faults/f.py::f", title="title of fault")
    page, _ = report(tmp_path, fault, *found)
    order = [page.text.index(f"title of {s}") for s in ("35.1", "35.9", "35.10", "fault")]
    assert order == sorted(order)


def test_claims_are_in_one_table_with_their_numbers(tmp_path: Path) -> None:
    claims = (
        Claim("dag_concurrency bounds a DAG", "seed 003", "outdated", "3.3.2", {"there": False}),
        Claim("one scheduler at a time", "seed 003", "wrong", "3.3.2", {"schedulers": 2}),
    )
    page, junit = report(tmp_path, result(kind="claim", section="", claims=claims))
    assert "outdated dag_concurrency bounds a DAG seed 003 3.3.2 there: no" in page.text.replace("◷ ", "")
    assert "wrong one scheduler at a time seed 003 3.3.2 schedulers: 2" in page.text
    assert "wrong: one scheduler at a time" in (junit.findtext("testcase/system-out") or "")


def test_whatever_is_put_in_is_escaped(tmp_path: Path) -> None:
    hostile = result(
        verdict="failed",
        title=HOSTILE,
        check=HOSTILE,
        message=HOSTILE,
        hint=HOSTILE,
        evidence=((HOSTILE, [{HOSTILE: HOSTILE}]), (HOSTILE, {HOSTILE: [HOSTILE]})),
        claims=(Claim(HOSTILE, HOSTILE, "holds", HOSTILE, {HOSTILE: HOSTILE}),),
        runs=(task(HOSTILE, 0, 1, hostname=HOSTILE),),
        logs={HOSTILE: HOSTILE},
    )
    lab = outputs(**{HOSTILE: [service(HOSTILE, queues=[HOSTILE])]})
    page, junit = report(tmp_path, hostile, lab=lab)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert('x')</script>&amp;\"") >= 12
    assert "\x1b" not in page.text and "\x00" not in page.text
    assert "<script>" in (junit.find("testcase/failure").get("message") or "")  # type: ignore[union-attr]


def test_it_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page, _ = report(tmp_path, result(runs=(task("t", 0, 1),)))
    text = (tmp_path / "report" / "report.html").read_text()
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "image"}
    assert not [a for _, attributes in page.tags for a in attributes if a in ("src", "href", "srcset", "data")]
    assert not re.search(r"@import|url\((?!#)", text)
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_a_comparison_is_linked_where_it_lies_beside_the_report(tmp_path: Path) -> None:
    def links(page: Page) -> list[str | None]:
        return [attributes["href"] for tag, attributes in page.tags if tag == "a"]

    page, _ = report(tmp_path, result())
    assert links(page) == [] and "Side by side" not in page.text
    (tmp_path / "report" / COMPARISON).touch()
    page, _ = report(tmp_path, result())
    assert links(page) == [COMPARISON] and "Side by side with the same lab on another platform" in page.text


def test_a_report_that_is_copied_takes_its_comparison_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "report_directory", lambda _lab: tmp_path / "report")
    results(result()).save(tmp_path / "report" / "results.json")
    report(tmp_path, result())
    for there in (False, True):
        if there:
            (tmp_path / "report" / COMPARISON).touch()
        html_path, _ = verify.rewrite_report("t-gone", tmp_path / "copy")
        assert (html_path.parent / COMPARISON).exists() is there


def test_no_secret_gets_in(tmp_path: Path) -> None:
    token = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJl"
    leaky = result(
        verdict="failed",
        message="login with hidden-word",
        evidence=(("url", "postgresql://airflow:pass-of-db@127.0.0.1/airflow"),),
        logs={"check": f"Authorization: Bearer {token} hidden-word"},
    )
    report(tmp_path, leaky)
    for name in ("report.html", "junit.xml"):
        text = (tmp_path / "report" / name).read_text()
        for secret in ("hidden-word", "pass-of-db", token):
            assert secret not in text, (name, secret)


def test_junit_counts_what_is_not_a_pass_as_such(tmp_path: Path) -> None:
    _, junit = report(
        tmp_path,
        result("a", seconds=1.5),
        result("b", verdict="failed", message="no\nmore", logs={"check": "trace"}),
        result("c", verdict="unknown", message="crashed"),
        result("d", verdict="not applicable", message="needs executor CeleryExecutor"),
    )
    assert {k: junit.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "1", "skipped": "1",
    }  # fmt: skip
    cases = {case.get("name"): case for case in junit}
    assert cases["test_a"].get("classname") == "section_35_02_local.test_35_02_01_x"
    assert cases["test_a"].get("time") == "1.5"
    assert (cases["test_b"].find("failure").get("message"), cases["test_b"].findtext("failure")) == ("no", "trace")  # type: ignore[union-attr]
    assert cases["test_c"].find("error").get("message") == "crashed"  # type: ignore[union-attr]
    assert cases["test_d"].find("skipped") is not None


# -- the time line


def bars(drawing: ElementTree.Element, kind: str) -> list[tuple[float, float, str]]:
    """Start, end and colour of each bar of a kind, in drawing units."""
    found = [r for r in drawing.iter("rect") if (r.get("class") or "").startswith(kind)]
    return [
        (float(r.get("x", 0)), float(r.get("x", 0)) + float(r.get("width", 0)), (r.get("class") or "").split()[1])
        for r in found
    ]


def words(drawing: ElementTree.Element) -> str:
    return " ".join(" ".join(drawing.itertext()).split())


def test_the_time_line_is_true_to_scale() -> None:
    drawing = timeline([task("a", 2, 4, pid=11), task("b", 4, 8, pid=12, state="failed")])
    assert drawing is not None
    (a_queued, b_queued), (a_ran, b_ran) = bars(drawing, "queued"), bars(drawing, "ran")
    second = (a_ran[1] - a_ran[0]) / 2
    assert b_ran[1] - b_ran[0] == pytest.approx(4 * second, abs=0.05)
    assert a_queued[1] == pytest.approx(a_ran[0], abs=0.05)
    assert a_queued[1] - a_queued[0] == pytest.approx(2 * second, abs=0.05)
    assert b_ran[0] == pytest.approx(a_ran[1], abs=0.05)
    ticks = {t.text: float(t.get("x", 0)) for t in drawing.iter("text") if t.get("class") == "tick"}
    assert ticks["2 s"] == pytest.approx(a_ran[0], abs=0.05)
    assert (a_ran[2], b_ran[2], b_queued[2]) == ("good", "bad", "bad")
    assert "at most 1" in words(drawing)
    for word in ("vm 2 processes", "pid 11", "pid 12", "success 2.0 s queued 2.0 s", "failed 4.0 s queued 4.0 s"):
        assert word in words(drawing)


def test_lanes_are_grouped_by_worker_and_tries_are_told_apart() -> None:
    drawing = timeline(
        [
            task("a", 0, 1, hostname="w2"),
            task("b", 0, 1, hostname="w1"),
            replace(task("a", 2, 3, hostname="w2", pid=8), try_number=2),
            task("lost", None, None, state="queued"),
        ]
    )
    assert drawing is not None
    text = words(drawing)
    order = [text.index(w) for w in ("w1 1 process", "w2 2 processes", "no worker 1 never started")]
    assert order == sorted(order)
    assert "a · try 2" in text
    assert "at most 2" in text


def test_what_has_not_ended_goes_on_to_the_edge() -> None:
    drawing = timeline([task("a", 1, None, state="running"), task("b", 0, 5)])
    assert drawing is not None
    (_, b_end, _), (_, a_end, hue) = sorted(bars(drawing, "ran"))
    assert (a_end, hue) == (b_end, "live")


def test_hundreds_of_task_instances_stay_readable() -> None:
    drawing = timeline([task(f"t{n}", n, n + 4, pid=n) for n in range(500)])
    assert drawing is not None
    assert len(bars(drawing, "ran")) == 500
    assert float((drawing.get("viewBox") or "").split()[3]) < 1300
    assert "at most 4" in words(drawing)
    assert "t42 · try 1: success on vm pid 42" in words(drawing)


def test_tasks_that_ended_as_they_started_are_drawn() -> None:
    drawing = timeline([task("a", 2, 2), task("b", 2, 2)])
    assert drawing is not None
    assert "2 task instances over" in html(drawing)


def test_nothing_to_draw_is_no_drawing() -> None:
    assert timeline([]) is None
    assert timeline([replace(task("a", None, None, state=None), queued=None)]) is None


# -- the topology

WORKERS = {
    "message_broker": [service("redis", endpoints={"redis": "127.0.0.1:28379"})],
    "celery_worker": [service("w1", queues=["default"]), service("w2", queues=["gpu", "io"])],
}
SITES = {"edge_worker": [service("site-a", queues=["north"])]}
EDGE = "airflow.providers.edge3.executors.EdgeExecutor"


@pytest.mark.parametrize(
    ("lab", "there", "absent"),
    [
        (outputs(), ["Task processes", "up to 4 at once", "forks"], ["broker", "Kubernetes"]),
        (
            outputs(["CeleryExecutor"], **WORKERS),
            ["Celery workers", "w1 · default", "w2 · gpu, io", "Message broker", "queues", "takes"],
            ["Task processes"],
        ),
        (outputs([EDGE], **SITES), ["Edge workers", "polls, reports", "north"], ["broker", "forks"]),
        (
            outputs(["LocalExecutor", "CeleryExecutor", f"edge:{EDGE}"], **WORKERS, **SITES),
            ["Task processes", "Celery workers", "Edge workers", "Message broker", "forks", "takes"],
            [],
        ),
        (outputs(["KubernetesExecutor"]), ["Task pods", "Kubernetes API", "creates"], ["Task processes"]),
        (
            outputs(scheduler=[service("s-0"), service("s-1")], statsd=[service("statsd")]),
            ["s-0", "s-1", "up to 4 at once per scheduler", "Statsd"],
            [],
        ),
        (outputs(["CeleryExecutor"], worker=[service("w1"), service("w2")]), ["Celery workers", "w1", "w2"], []),
        (
            outputs(["CeleryExecutor"], celery_worker=[service(f"w{n}") for n in range(20)]),
            ["w4", "and 15 more"],
            ["w5"],
        ),
    ],
)
def test_the_topology_shows_every_role_of_every_lab(lab: dict[str, Any], there: list[str], absent: list[str]) -> None:
    drawing = topology(lab)
    text = words(drawing)
    for word in (*there, "API server", "Scheduler", "Triggerer", "DAG processor", "Metadata database", "28432"):
        assert word in text
    for word in absent:
        assert word not in text
    boxes = [r for r in drawing.iter("rect") if r.get("class") == "box"]
    places = [(float(r.get("x", 0)), float(r.get("y", 0)), float(r.get("height", 0))) for r in boxes]
    for x, y, height in places:
        below = [other for column, other, _ in places if column == x and other > y]
        assert all(other >= y + height for other in below), "boxes overlap"
    lefts = {x for x, _, _ in places}
    rights = {x + topology_module.WIDTH for x, _, _ in places}
    for edge in (g for g in drawing.iter("g") if g.get("class") == "edge"):
        ends = re.fullmatch(r"M(\S+) (\S+)C.* (\S+) (\S+)", edge[0].get("d") or "")
        assert ends
        x1, y1, x2, y2 = map(float, ends.groups())
        assert (x1, x2) in {(a, b) for a in rights for b in lefts if a < b} | {
            (a, b) for a in lefts for b in rights if a > b
        }, "an arrow does not lead from one box to the side of another that faces it"
        assert all(any(top <= y <= top + height for _, top, height in places) for y in (y1, y2))


# -- elements


def test_elements() -> None:
    made = el("p", "a < b ", el("b", "c & d"), " e", None, class_="x y", data_n=1.50, hidden=None)
    assert html(made) == '<p class="x y" data-n="1.5">a &lt; b <b>c &amp; d</b> e</p>'


def test_short() -> None:
    assert (short("abc", 3), short("abcdefgh", 5)) == ("abc", "ab…gh")
