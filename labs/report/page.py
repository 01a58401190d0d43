"""The HTML page: verdicts first, what is behind each of them one click away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from labs.report.markup import Element, el, html
from labs.report.timeline import timeline
from labs.report.topology import topology
from labs.results import Claim, Result, Results
from labs.runs import TaskInstance
from stacks.catalogue import SECTIONS, class_name

MARKS = {
    "passed": ("✓", "good"),
    "failed": ("✕", "bad"),
    "unknown": ("?", "warn"),
    "not applicable": ("–", "none"),
    "holds": ("✓", "good"),
    "outdated": ("◷", "warn"),
    "wrong": ("✕", "bad"),
}
COUNTED = ("passed", "failed", "unknown", "not applicable")
MOST_ROWS = 60
LEGEND = "Light: queued, full: running."
SEPARATE_RUNS = 4
"""Up to so many runs of one check get a time line each; more share one."""


COMPARISON = "comparison.html"
"""What the page of a comparison is called that lies beside a report."""


def page(outputs: Mapping[str, Any], results: Results, *, compared: bool = False) -> str:
    """The whole document; it loads nothing and runs no script.

    Args:
        compared: whether a comparison with another lab lies beside it.
    """
    return document(
        f"Lab {results.lab}: {_headline(results)}",
        _header(outputs, results),
        _summary(results, compared),
        _figure("Topology", topology(outputs), "Who runs in this lab and who talks to whom."),
        *_sections(results),
        _sources(results),
        el("footer", f"Made from {len(results.results)} results of lab {results.lab}. ", _again(results)),
    )


def document(title: str, *content: Element | None) -> str:
    """A whole document around its content."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        # the browser itself refuses whatever would leave this file
        el("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        el("title", title),
        el("style", Path(__file__).with_name("style.css").read_text(encoding="utf-8")),
    )
    return "<!doctype html>\n" + html(el("html", head, el("body", el("main", *content)), lang="en"))


# -- the whole


def _headline(results: Results) -> str:
    counts = _counts(results.results)
    if counts["failed"]:
        return f"{counts['failed']} of {len(results.results)} checks failed"
    if counts["unknown"]:
        return f"{counts['unknown']} of {len(results.results)} checks could not be decided"
    if not counts["passed"]:
        return "nothing was proven"
    rest = counts["not applicable"]
    return f"all {counts['passed']} checks passed" + (f", {rest} not applicable" if rest else "")


def _header(outputs: Mapping[str, Any], results: Results) -> Element:
    machine = results.machine
    facts = {
        "Executor": ", ".join(map(class_name, outputs["executors"])),
        "Platform": outputs["platform"],
        "Engine": outputs.get("engine"),
        "Airflow": outputs["airflow_version"],
        "Sections": ", ".join(outputs["sections"]),
        "Verified": f"{results.started:%-d %B %Y, %H:%M} · {_duration(results.seconds)}",
        "Commit": machine.get("commit"),
        "Machine": " · ".join(
            filter(None, [machine.get("system"), f"{machine.get('cores')} cores", machine.get("memory")])
        ),
    }
    options = ", ".join(f"{k} = {v}" for k, v in sorted(outputs.get("options", {}).items()))
    return el(
        "header",
        el("p", "Airflow executor lab", class_="kicker"),
        el("h1", str(outputs["name"])),
        el(
            "dl",
            *(el("div", el("dt", name), el("dd", str(value))) for name, value in facts.items() if value),
            class_="facts",
        ),
        *([el("p", el("span", "Options "), options, class_="options")] if options else []),
    )


def _summary(results: Results, compared: bool) -> Element:
    counts = _counts(results.results)
    headline = _headline(results)
    mark = "failed" if counts["failed"] else "unknown" if counts["unknown"] or not counts["passed"] else "passed"
    return el(
        "section",
        el("p", el("span", MARKS[mark][0], class_="disc", aria_hidden="true"), headline[0].upper() + headline[1:] + ".",
           class_=f"headline {MARKS[mark][1]}"),
        el("div", *(el("span", style=f"flex-grow:{n}", class_=MARKS[v][1]) for v, n in counts.items() if n),
           class_="bar", aria_hidden="true"),
        el("ul", *(el("li", el("strong", str(n)), f" {v}", class_=MARKS[v][1]) for v, n in counts.items()),
           class_="counts"),
        el("p", el("a", "Side by side with the same lab on another platform", href=COMPARISON)) if compared else None,
        class_="summary",
    )  # fmt: skip


def _counts(results: Sequence[Result]) -> dict[str, int]:
    return {verdict: sum(r.verdict == verdict for r in results) for verdict in COUNTED}


def _sections(results: Results) -> Iterator[Element]:
    """The checks by section in the curriculum's order, then the faults."""

    def place(result: Result) -> tuple[bool, list[int]]:
        return result.kind == "fault", [int(number) for number in result.section.split(".") if number]

    checks = sorted((r for r in results.results if r.kind != "claim"), key=place)
    for (fault, numbers), found in groupby(checks, key=place):
        section = ".".join(map(str, numbers))
        title = SECTIONS[section].title if section in SECTIONS else "Faults" if fault else "Scenarios"
        number = el("span", section, class_="number") if section else None
        yield _section([number, title], list(found))


def _sources(results: Results) -> Element | None:
    """What others say, judged, and the checks that judge it."""
    claims = [c for r in results.results for c in r.claims]
    checks = [r for r in results.results if r.kind == "claim"]
    if not claims and not checks:
        return None
    return _section(["What the sources say"], checks, _claims(claims) if claims else None)


def _section(title: Sequence[Element | str | None], checks: Sequence[Result], first: Element | None = None) -> Element:
    scenarios = groupby(checks, key=lambda r: (r.scenario.partition("::")[0], r.title, r.dag))
    return el(
        "section",
        el("h2", *title, _tally(checks)),
        first,
        *(_scenario(title, dag, list(found)) for (_, title, dag), found in scenarios),
    )


def _scenario(title: str, dag: str, checks: Sequence[Result]) -> Element:
    file = el("code", f"{dag}.py", class_="file") if dag else None
    return el("div", el("h3", el("span", *prose(title)), file), *(_check(r) for r in checks), class_="scenario")


def _tally(checks: Sequence[Result]) -> Element:
    counts = {v: n for v, n in _counts(checks).items() if n}
    return el("small", *(el("span", f"{n} {v}", class_=MARKS[v][1]) for v, n in counts.items()))


def _figure(title: str, drawing: Element, caption: str) -> Element:
    return el("section", el("h2", title), el("figure", el("div", drawing, class_="wide"), el("figcaption", caption)))


def _again(results: Results) -> Element:
    return el("span", "Verify again with ", el("code", f"./lab verify {results.lab}"), ".")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# -- one check


def chip(verdict: str) -> Element:
    """A verdict with its mark."""
    mark, hue = MARKS[verdict]
    return el("span", el("span", mark, class_="disc", aria_hidden="true"), verdict, class_=f"chip {hue}")


def _check(result: Result) -> Element:
    return el(
        "details",
        el(
            "summary",
            chip(result.verdict),
            el("span", *prose(result.check)),
            el("span", _duration(result.seconds) if result.seconds >= 0.5 else "", class_="took"),
        ),
        el("div", *_behind(result), class_="behind"),
    )


def _behind(result: Result) -> Iterator[Element]:
    if result.message:
        first, _, rest = result.message.partition("\n")
        yield el("p", first, class_="message")
        if rest:
            yield el("pre", rest)
    if result.hint and result.verdict in ("failed", "unknown"):
        yield el("p", el("strong", "Hint: "), *prose(result.hint), class_="hint")
    if result.evidence:
        yield _pairs(result.evidence, "evidence")
    for claim in result.claims:
        yield el("p", chip(claim.verdict), el("q", claim.statement), f" {claim.source}", class_="said")
    for caption, instances in _runs(result.runs):
        drawing = timeline(instances)
        if drawing is not None:
            yield el("figure", el("div", drawing, class_="wide"), el("figcaption", caption))
    for name, text in result.logs.items():
        label = "Where the check stopped" if name == "check" else f"Last log lines of {name}"
        yield el("details", el("summary", label), el("pre", text), class_="log")
    yield el("p", el("code", result.scenario), class_="where")


def _runs(instances: Sequence[TaskInstance]) -> Iterator[tuple[str, list[TaskInstance]]]:
    """What to draw together, with its caption."""
    runs = {ti.run_id: ti.dag_id for ti in instances}
    if len(runs) > SEPARATE_RUNS:
        yield f"{len(runs)} runs of {len(set(runs.values()))} DAGs: {_states(instances)}. {LEGEND}", list(instances)
        return
    for run_id, dag_id in runs.items():
        found = [ti for ti in instances if ti.run_id == run_id]
        yield f"{dag_id}: {_states(found)}. {LEGEND} Run {run_id}.", found


def _states(instances: Sequence[TaskInstance]) -> str:
    counts = Counter(ti.state or "without a state" for ti in instances)
    return ", ".join(f"{n} {state}" for state, n in counts.most_common())


# -- values


def prose(text: str) -> Iterator[Element | str]:
    """Text with what stands between backquotes as code."""
    for position, part in enumerate(text.split("`")):
        yield el("code", part) if position % 2 else part


def _value(value: Any) -> Element:
    if isinstance(value, Mapping) and value:
        return _pairs(list(value.items()))
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return rows(value)
    if isinstance(value, list):
        return el("span", ", ".join(_scalar(v) for v in value) or "none")
    text = _scalar(value)
    return el("pre", text) if "\n" in text else el("span", text)


def _pairs(pairs: Sequence[tuple[str, Any]], class_: str | None = None) -> Element:
    lines = (el("tr", el("th", str(name), scope="row"), el("td", _value(value))) for name, value in pairs)
    return el("table", el("tbody", *lines), class_=class_)


def rows(found: Sequence[Mapping[str, Any]]) -> Element:
    """A table of mappings, with a column for each key."""
    names = list(dict.fromkeys(name for row in found for name in row))
    numeric = {n for n in names if all(isinstance(row.get(n), (int, float)) for row in found)}
    table = el(
        "table",
        el("thead", el("tr", *(el("th", n, scope="col", class_="n" if n in numeric else None) for n in names))),
        el(
            "tbody",
            *(
                el("tr", *(el("td", _value(row.get(n, "")), class_="n" if n in numeric else None) for n in names))
                for row in found[:MOST_ROWS]
            ),
        ),
    )
    if len(found) > MOST_ROWS:
        table.append(el("caption", f"and {len(found) - MOST_ROWS} more rows, in the results file"))
    return table


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else json.dumps(value)


# -- claims


def _claims(claims: Sequence[Claim]) -> Element:
    names = ("Verdict", "Statement", "Source", "Airflow", "Numbers")
    table = el(
        "table",
        el("thead", el("tr", *(el("th", name, scope="col") for name in names))),
        el("tbody", *(_claim(c) for c in claims)),
        class_="claims",
    )
    return el("div", table, class_="wide")


def _claim(claim: Claim) -> Element:
    numbers = [el("span", f"{k}: ", el("strong", _scalar(v))) for k, v in claim.numbers.items()]
    return el(
        "tr",
        el("td", chip(claim.verdict)),
        el("td", claim.statement),
        el("td", claim.source),
        el("td", claim.version),
        el("td", *numbers, class_="numbers"),
    )
