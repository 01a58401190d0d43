"""`verify`: run the scenarios of a lab in a process of their own, then write the report."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from labs.comparison import Reason, Row, compare, explanations, summary
from labs.console import err, out, plural
from labs.errors import ExitCode, LabError, UsageError
from labs.lab import Lab
from labs.paths import CHECKOUT, PROJECT_ROOT, cache_root, make_private
from labs.report import COMPARISON, comparison_page, write_report
from labs.results import Results

SCENARIOS = PROJECT_ROOT / "scenarios"


def report_directory(lab: str) -> Path:
    """Reports outlive their lab, so they are kept in the cache."""
    return make_private(cache_root() / "reports" / f"{lab}-{CHECKOUT}")


def scenario_paths(sections: Sequence[str], section: str | None) -> list[Path]:
    """The folders of the scenarios of one section, or of all sections of a lab with its claims and faults.

    Raises:
        UsageError: that section has no scenarios here.
    """
    wanted = [section] if section else sections
    prefixes = ["section_{}_{:02d}_".format(*map(int, number.split("."))) for number in wanted]
    folders = sorted(folder for prefix in prefixes for folder in SCENARIOS.glob(f"{prefix}*"))
    if section and not folders:
        raise UsageError(f"section {section} has no scenarios here yet: `lab list` shows those that have")
    return folders if section else [*folders, SCENARIOS / "claims", SCENARIOS / "faults"]


def check_verifiable(platform: str) -> None:
    """Check that the scenarios can look at a lab of that platform.

    Raises:
        UsageError: they cannot.
    """
    if platform == "docker" and (sys.platform != "linux" or os.geteuid() != 0):
        raise UsageError(
            "the scenarios look at the processes of containers from this machine, which only root of a Linux machine "
            "may do: verify as root, or on the platform process"
        )


def verify_lab(
    name: str,
    *,
    section: str | None = None,
    only: Sequence[str] = (),
    everything: bool = False,
    quiet: bool = False,
) -> int:
    """Run scenarios against a lab that is up.

    Args:
        section: only that section's; otherwise those of all sections of the lab, with claims and faults.
        only: parts of names, any of which a scenario's name must contain.
        everything: also the scenarios that take minutes.

    Returns:
        An exit code: 0 when all that applies is proven, 1 when something failed, 3 when something is unknown.
    """
    lab = Lab.of(name)
    check_verifiable(lab.platform)
    directory = report_directory(name)
    record = directory / "results.json"
    for outdated in (record, directory / COMPARISON):
        outdated.unlink(missing_ok=True)
    paths = scenario_paths(lab.outputs["sections"], section)
    command = [sys.executable, "-m", "pytest", *map(str, paths), "--lab", name, "--results", str(record)]
    command += ["-p", "no:cacheprovider", "--no-header", "-q", "--tb=short"]
    command += ["-k", " or ".join(only)] if only else []
    command += [] if everything else ["-m", "not long"]
    ended = _run(command, quiet)
    if not record.exists():
        raise LabError(f"the scenarios of {name} did not start (pytest ended with {ended}); its output says why")
    results = Results.load(record)
    html, junit = write_report({**lab.outputs, "engine": lab.engine.name}, results, directory)
    if not quiet:
        counts = Counter(result.verdict for result in results.results)
        summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        out.print(f"[bold]{plural(len(results.results), 'check')}[/]: {summary}")
        out.print(f"report: {html}\nJUnit:  {junit}", soft_wrap=True)
    if ended < 0 or ended == ExitCode.USAGE:
        err.print("the scenarios were interrupted; what had not ended is unknown")
        return ExitCode.INTERRUPTED
    return int(results.exit_code())


def _run(command: Sequence[str], quiet: bool) -> int:
    """Run the scenarios to their end, also when interrupted: they heal what they broke, then end.

    In a session of their own they are interrupted once, by us, and not by the terminal too: a second interruption
    would end the healing.
    """
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=output, start_new_session=True) as scenarios:
        while True:
            try:
                return scenarios.wait()
            except KeyboardInterrupt:
                scenarios.send_signal(signal.SIGTERM)


MARKS = {
    "passed": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "unknown": "[yellow]?[/]",
    "not applicable": "[dim]–[/]",
}


def compare_labs(names: Sequence[str], section: str | None = None, output: Path | None = None) -> int:
    """Print the last verification of several labs side by side: for each scenario its checks that passed, of all.

    Below it, how many checks agree, and why the others do not, numbered as in the table. Where names would not fit
    their columns have letters.

    Args:
        section: only that section's scenarios.
        output: an HTML file to write, too.

    Returns:
        An exit code: 1 when a DAG computed something else on one of the labs than on another, or a check failed on one
        and not on another; otherwise 0.

    Raises:
        LabError: one of them was never verified.
    """
    labs = {name: Results.load(report_directory(name) / "results.json") for name in names}
    rows = compare(labs, section)
    explained = explanations(rows)
    numbers = {reason: number for number, reason in enumerate(explained, 1)}
    table = Table(box=None, header_style="bold")
    table.add_column("scenario", no_wrap=True)
    room = out.width - max((len(row.name) for row in rows), default=0) - len("  result ")
    heads = names if sum(len(name) + 2 for name in names) <= room else [chr(ord("A") + n) for n in range(len(names))]
    out.print(*(f"{head}: {name}\n" for head, name in zip(heads, names, strict=True) if head != name), sep="", end="")
    for head in heads:
        table.add_column(head, overflow="fold")
    table.add_column("result", no_wrap=True)
    for row in rows:
        cells = [_cell(row, name, numbers) if name in row.counts else "" for name in names]
        table.add_row(row.name, *cells, {None: "", True: "same", False: "[red]differs[/]"}[row.same])
    out.print(table)
    out.print(summary(rows), soft_wrap=True)
    for reason, count in explained.items():
        out.print(f"({numbers[reason]}) {count} × {escape(str(reason))}", soft_wrap=True)
    different = [row for row in rows if row.same is False]
    for row in different:
        found = "; ".join(f"{name}: {value}" for name, value in row.results.items())
        out.print(f"[red]{row.name} computed[/] {escape(found)}", soft_wrap=True)
    if output is not None:
        output.write_text(comparison_page(labs, rows), encoding="utf-8")
        out.print(f"comparison: {output}", soft_wrap=True)
    failed = any(reason.verdict == "failed" for reason in explained)
    return ExitCode.FAILED if different or failed else ExitCode.OK


def _cell(row: Row, lab: str, numbers: Mapping[Reason, int]) -> str:
    """`✓ 5/7 (1) (3)`: the verdict, how many checks passed of all, and why some differ from other labs'."""
    notes = sorted({numbers[reason] for _, reason in row.reasons if reason.lab == lab})
    passed, all_ = row.counts[lab]
    return " ".join([MARKS[row.verdicts[lab]], f"{passed}/{all_}", *(f"({note})" for note in notes)])


def rewrite_report(name: str, output: Path | None) -> tuple[Path, Path]:
    """Write the report of the last `verify` again, from its results, into `output` or its old place.

    A comparison beside it goes with it.
    """
    directory = report_directory(name)
    results = Results.load(directory / "results.json")
    html, junit = directory / "report.html", directory / "junit.xml"
    try:
        lab = Lab.of(name)
        html, junit = write_report({**lab.outputs, "engine": lab.engine.name}, results, directory)
    except LabError:
        if not html.exists():  # the lab is down and left no report
            raise
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for comparison in directory.glob(COMPARISON):
            shutil.copy2(comparison, output)
        html, junit = (Path(shutil.copy2(file, output)) for file in (html, junit))
    return html, junit
