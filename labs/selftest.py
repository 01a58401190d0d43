"""`test`: the project's own tests, the last of them on a real lab."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from labs.paths import PROJECT_ROOT

SUITES = ("tests/unit", "tests/engine", "tests/lab")


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
