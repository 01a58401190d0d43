"""The results as JUnit XML, for whatever shows such files."""

from __future__ import annotations

from xml.etree import ElementTree

from labs.report.markup import Element, el
from labs.results import Result, Results

TAGS = {"failed": "failure", "unknown": "error", "not applicable": "skipped"}


def junit(results: Results) -> str:
    """One test suite, a test case for each check; *unknown* is an error, *not applicable* is skipped."""
    cases = [_case(r) for r in results.results]
    counts = {tag: sum(r.verdict == verdict for r in results.results) for verdict, tag in TAGS.items()}
    suite = el(
        "testsuite",
        *cases,
        name=f"lab {results.lab}",
        tests=len(cases),
        failures=counts["failure"],
        errors=counts["error"],
        skipped=counts["skipped"],
        time=results.seconds,
        timestamp=results.started.isoformat(timespec="seconds"),
    )
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _case(result: Result) -> Element:
    module, _, function = result.scenario.partition("::")
    claims = [f"{c.verdict}: {c.statement} ({c.source})" for c in result.claims]
    case = el(
        "testcase",
        classname=module.removesuffix(".py").replace("/", "."),
        name=function or module,
        time=result.seconds,
    )
    if result.verdict in TAGS:
        text = result.logs.get("check", "") if result.verdict != "not applicable" else ""
        case.append(el(TAGS[result.verdict], text, message=result.message.split("\n")[0]))
    if claims:
        case.append(el("system-out", "\n".join(claims)))
    return case
