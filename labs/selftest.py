"""`test`: the project's own tests, the last of them on a real lab; or all scenarios of all labs, one lab by one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from labs.console import duration, err, out, watching
from labs.errors import ExitCode, LabError
from labs.lab import Lab
from labs.paths import PROJECT_ROOT
from labs.results import Results
from labs.verify import compare_labs, report_directory, verify_lab
from stacks.catalogue import LABS

SUITES = ("tests/unit", "tests/engine", "tests/lab")

PHASES = ("up", "verify", "down")

VERDICTS = ("passed", "failed", "unknown", "not applicable")


def run_tests(everything: bool, arguments: Sequence[str]) -> int:
    """Run ruff, mypy and pytest; returns the exit code of the first that fails.

    Args:
        everything: also what is marked `long`.
        arguments: passed on to pytest; when they name paths, only those run.
    """
    chosen = [argument for argument in arguments if not argument.startswith("-")]
    pytest = ["pytest", *([] if chosen else SUITES), *([] if everything else ["-m", "not long"]), *arguments]
    checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
    for command in [*([] if chosen else checks), pytest]:
        done = subprocess.run([sys.executable, "-m", *command], cwd=PROJECT_ROOT, check=False)
        if done.returncode:
            return done.returncode
    return 0


def verify_platform(platform: str) -> int:
    """Bring each lab of a platform up, run its scenarios, take it down; ends with tables.

    Returns:
        An exit code: 0 when every lab came up, all that applies to it is proven, and the portable DAGs computed the
        same on all of them; of several others, the first.
    """
    table = Table("lab", *PHASES, *VERDICTS, box=None, header_style="bold")
    codes: list[int] = []
    verified: list[str] = []
    begun = time.monotonic()
    for target in (lab.name for lab in LABS.values() if platform in lab.platforms):
        lab = Lab.request(target, name=f"test-{target}", platform=platform)
        spent: dict[str, str] = {}
        counts: Counter[str] = Counter()
        try:
            with _timed("up", spent), watching(f"lab {lab.name}") as watch:
                lab.up(watch)
            with _timed("verify", spent):
                codes.append(verify_lab(lab.name))
            results = Results.load(report_directory(lab.name) / "results.json")
            counts.update(result.verdict for result in results.results)
            verified.append(lab.name)
        except LabError as error:
            err.print(f"[red]{lab.name}:[/] {escape(str(error))}", soft_wrap=True)
            codes.append(error.exit_code)
        finally:
            with _timed("down", spent):
                lab.down()
        cells = [spent.get(phase, "–") for phase in PHASES]
        table.add_row(target, *cells, *(str(counts[verdict]) for verdict in VERDICTS))
        if codes[-1] == ExitCode.INTERRUPTED:
            break
    if len(verified) > 1:
        codes.append(compare_labs(verified, "35.5"))
    out.print(table)
    out.print(f"all labs of the platform {platform}: {duration(time.monotonic() - begun)}")
    return next(filter(None, codes), ExitCode.OK)


@contextlib.contextmanager
def _timed(phase: str, spent: dict[str, str]) -> Iterator[None]:
    begun = time.monotonic()
    yield
    spent[phase] = duration(time.monotonic() - begun)
