"""The HTML page of a comparison: a table of verdicts, scenario × lab, and around it how many checks differ, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from labs.comparison import Row, explanations, summary
from labs.report.markup import Element, el
from labs.report.page import MARKS, chip, document, prose, rows
from labs.results import Results
from stacks.catalogue import SECTIONS


def comparison_page(labs: Mapping[str, Results], found: Sequence[Row]) -> str:
    """The whole document; it loads nothing and runs no script."""
    return document(
        f"Labs side by side: {', '.join(labs)}",
        el(
            "header",
            el("p", "Airflow executor labs", class_="kicker"),
            el("h1", "Labs side by side"),
            el(
                "dl",
                *(el("div", el("dt", name), el("dd", _when(results))) for name, results in labs.items()),
                class_="facts",
            ),
        ),
        _summary(found),
        *(_section(list(labs), section, list(each)) for section, each in groupby(found, key=lambda row: row.section)),
    )


def _when(results: Results) -> str:
    commit = results.machine.get("commit", "")
    return f"{results.started:%-d %B %Y, %H:%M}" + (f", commit {commit}" if commit else "")


def _summary(found: Sequence[Row]) -> Element:
    """How many checks agree, and why the others do not."""
    said = summary(found)
    return el(
        "section",
        el("p", said[0].upper() + said[1:] + ".", class_="headline"),
        el(
            "ul", *(el("li", el("strong", str(count)), f" × {reason}") for reason, count in explanations(found).items())
        ),
        class_="summary",
    )


def _section(labs: Sequence[str], section: str, found: Sequence[Row]) -> Element:
    head = ("Scenario", *labs, "Result")
    table = el(
        "table",
        el("thead", el("tr", *(el("th", name, scope="col") for name in head))),
        el("tbody", *(_row(labs, row) for row in found)),
        class_="comparison",
    )
    reasons = [
        {"Scenario": row.name, "Check": check, "Lab": reason.lab, "Verdict": reason.verdict, "Why": reason.why}
        for row in found
        for check, reason in row.reasons
    ]
    why = el("details", el("summary", "What differs, and why"), rows(reasons)) if reasons else None
    title = SECTIONS[section].title if section else "Claims and faults"
    return el("section", el("h2", el("span", section, class_="number") if section else None, title), table, why)


def _row(labs: Sequence[str], row: Row) -> Element:
    hue, said = {
        None: ("none", ""),
        True: (MARKS["passed"][1], "the same"),
        False: (MARKS["failed"][1], f"differs: {dict(row.results)}"),
    }[row.same]
    whys = Counter(reason for _, reason in row.reasons)
    notes = [each for reason, count in whys.items() for each in (el("br"), el("small", f"{count} × {reason}"))]
    return el(
        "tr",
        el("th", *prose(row.title), el("br"), el("code", row.name), *notes, scope="row"),
        *(_cell(row, lab) for lab in labs),
        el("td", said, class_=hue),
    )


def _cell(row: Row, lab: str) -> Element:
    if lab not in row.verdicts:
        return el("td")
    return el("td", chip(row.verdicts[lab]), el("br"), el("small", "{} of {}".format(*row.counts[lab])))
