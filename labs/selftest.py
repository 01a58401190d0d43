"""`test`: the project's own tests, the last of them on a real lab; or all scenarios of all labs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from labs.console import duration, err, out
from labs.errors import ExitCode
from labs.paths import PROJECT_ROOT, lab_directory
from labs.report import COMPARISON
from labs.results import Results, Verdict
from labs.verify import compare_labs, report_directory
from stacks.catalogue import LABS

SUITES = ("tests/unit", "tests/engine", "tests/containers", "tests/lab")

PHASES = ("up", "verify", "down")

VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "unknown", "not applicable")

AUTOSCALED = ("35_09_01", "35_09_05", "test_autoscaler_blind")

EXTRAS: Mapping[str, Mapping[tuple[str, ...], Sequence[str]]] = {
    "kubernetes": {("log-store", "metrics-server"): ("35_04_04", "35_04_08", "35_04_09", "test_log_store_lost")},
    "celery": {("keda",): AUTOSCALED, ("metrics-server",): AUTOSCALED},  # each is another autoscaler
}
"""By lab, the extras that scenarios look at in a cluster, those that go together as one, and which scenarios do.

Without them a lab is looked at, too: only there it shows what is missing, such as the log of a pod that is gone.
"""


@dataclass(frozen=True)
class Trial:
    """A lab as it is brought up to run its scenarios."""

    lab: str
    platform: str
    extras: Sequence[str] = ()
    only: Sequence[str] = ()
    """Parts of scenarios' names, as `verify -k` takes them; all of them otherwise."""

    @property
    def name(self) -> str:
        """The name of that lab, which is no longer than names may be."""
        return "-".join(("test", self.lab, self.platform, *self.extras[:1]))

    @property
    def alone(self) -> bool:
        """Whether it wants the machine for itself: two of everything on nodes, whose outages are measured."""
        return self.platform == "kubernetes" and LABS[self.lab].count("scheduler") > 1

    @property
    def options(self) -> list[str]:
        """What `up` takes; in a cluster the lab is alone, as faults stop its nodes."""
        with_extras = [word for extra in self.extras for word in ("--with", extra)]
        alone = ["--dedicated"] if self.platform == "kubernetes" else []
        return [self.lab, "--name", self.name, "--platform", self.platform, *with_extras, *alone]


def trials(platform: str) -> list[Trial]:
    """Every lab of a platform, in a cluster also with its extras and what looks at them."""
    found = []
    for lab in LABS.values():
        if platform in lab.platforms:
            more = EXTRAS.get(lab.name, {}) if platform == "kubernetes" else {}
            found += [Trial(lab.name, platform, *each) for each in (((), ()), *more.items())]
    return found


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
    """Bring each lab of a platform up, run its scenarios, take it down; in a cluster again with its extras.

    As many labs at once as there are CPUs, but for those that want them all.

    Returns:
        An exit code: 0 when every lab came up, all that applies to it is proven, the portable DAGs computed the same
        on all of them, and all that was proven on processes is proven or not applicable; of several others, the first.
    """
    asked = trials(platform)
    begun = time.monotonic()
    found = {trial: _verify(trial) for trial in asked if trial.alone}
    others = [trial for trial in reversed(asked) if not trial.alone]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found |= zip(others, pool.map(_verify, others), strict=True)
    tried = [found[trial] for trial in asked]
    table = Table("lab", *PHASES, *VERDICTS, box=None, header_style="bold")
    for trial, (_, spent, results) in zip(asked, tried, strict=True):
        counts = Counter(result.verdict for result in (results.results if results else ()))
        cells = [duration(spent[phase]) if phase in spent else "–" for phase in PHASES]
        table.add_row(" + ".join((trial.lab, *trial.extras)), *cells, *(str(counts[verdict]) for verdict in VERDICTS))
    codes = [code for code, *_ in tried]
    verified = [trial.name for trial, (_, _, results) in zip(asked, tried, strict=True) if results and not trial.only]
    if len(verified) > 1:
        codes.append(compare_labs(verified, "35.5"))
    out.print(table)
    out.print(f"all labs of the platform {platform}: {duration(time.monotonic() - begun)}")
    return next(filter(None, codes), ExitCode.OK)


def _beside_processes(trial: Trial, run: Callable[..., int]) -> int:
    """Compare a lab, while it is up, with the same on processes, on a page that its report links: the exit code.

    Args:
        run: a command of `lab`, by its arguments; gives the exit code.
    """
    other, name = Trial(trial.lab, "process").name, trial.name
    if not all((report_directory(each) / "results.json").exists() for each in (other, name)):
        err.print(f"{name}: not compared with {other}, as one of them was not verified")
        return ExitCode.OK
    compared = run("compare", other, name, "--output", str(report_directory(name) / COMPARISON))
    return run("report", name) or compared


def _verify(trial: Trial) -> tuple[int, dict[str, float], Results | None]:
    """One lab from up to down, by commands of their own: the exit code, seconds by phase, and what was found."""
    name = trial.name
    spent: dict[str, float] = {}

    def phase(*arguments: str) -> int:
        begun = time.monotonic()
        command = [sys.executable, "-m", "labs", *arguments]
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
        spent[arguments[0]] = time.monotonic() - begun
        said = f"{arguments[0]} {name}: {duration(spent[arguments[0]])}"
        if done.returncode:
            said = f"[red]{said}, exit code {done.returncode}[/]\n{escape(done.stdout + done.stderr)}"
        err.print(said, soft_wrap=True)
        return done.returncode

    codes = [phase("up", *trial.options, "--quiet")]
    try:
        if not any(codes):
            codes.append(phase("verify", name, *(word for part in trial.only for word in ("-k", part))))
            if trial.platform != "process" and "process" in LABS[trial.lab].platforms and not trial.only:
                codes.append(_beside_processes(trial, phase))
    finally:
        if lab_directory(name).exists():
            codes.append(phase("down", name, "--quiet"))
    record = report_directory(name) / "results.json"
    found = Results.load(record) if "verify" in spent and record.exists() else None
    return next(filter(None, codes), ExitCode.OK), spent, found
