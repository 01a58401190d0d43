"""The command line. Each verb is one function here; what it does is elsewhere.

Exit codes: 0 done, 1 failed, 2 the request is wrong, 3 something is not proven, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterable
from gc import freeze
from inspect import Signature, signature
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.markup import escape
from rich.table import Table

from labs import gc as collector
from labs import images_cli
from labs.console import duration, err, is_change, out, plural, watching
from labs.engines import pulumi_home
from labs.errors import ExitCode, LabError, UsageError
from labs.lab import Lab, log_files
from labs.paths import PROJECT_ROOT
from stacks.catalogue import EXTRAS, LABS, SECTIONS, STACKS, class_name

app = typer.Typer(
    name="lab",
    help="Executor labs for Apache Airflow: real topologies, the curriculum's DAGs, and proof of what they teach.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong request, 3 not proven, 130 interrupted.",
)

Target = Annotated[str, typer.Argument(metavar="LAB", help="A lab or a section: `local`, `35.2`.")]
Existing = Annotated[str, typer.Argument(metavar="LAB", help="Name of a lab that is up, or a section.")]
Name = Annotated[
    str | None, typer.Option(help="Name of this instance; several labs of one kind can live side by side.")
]
EngineName = Annotated[str, typer.Option("--engine", help="auto, embedded, or pulumi (the Pulumi CLI).")]
PlatformName = Annotated[
    str | None, typer.Option("--platform", help="Where services run: process, docker or kubernetes.")
]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", metavar="CLUSTER", help="kind, or context:NAME for a cluster of yours.")
]
Dedicated = Annotated[bool, typer.Option("--dedicated", help="A kind cluster of its own; labs share one otherwise.")]
ApiPort = Annotated[int | None, typer.Option("--port", help="Port of the API server; a free one otherwise.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="An existing PostgreSQL database to use.", envvar="LAB_DATABASE_URL"),
]
PodTemplate = Annotated[
    Path | None, typer.Option("--pod-template", metavar="FILE", help="Template of the pods of the KubernetesExecutor.")
]
AirflowImage = Annotated[
    str | None,
    typer.Option("--airflow-image", metavar="NAME:TAG", help="Your image of Airflow, instead of the labs' own."),
]
Rotate = Annotated[
    bool,
    typer.Option("--rotate", help="New secrets and passwords, once no task of the lab runs; none starts till then."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="An Airflow option; repeatable."),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="PATH=VALUE",
        help="The lab's shape: executors=…, workers.NAME.FIELD=…, sites.NAME.FIELD=…, replicas.ROLE=…, budgets.ROLE=…, "
        "autoscaling.NAME.FIELD=….",
    ),
]
Extras = Annotated[
    list[str] | None, typer.Option("--with", metavar="EXTRA", help=f"Add to the lab: {', '.join(EXTRAS)}; repeatable.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and results.")]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]


WELL = ("RUNNING", "SCALED TO NONE")
"""States of a service that is as it should be."""


def _options(pairs: Iterable[str] | None) -> dict[str, str]:
    options = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: write SECTION.KEY=VALUE, as core.parallelism=4")
        options[key] = value
    return options


def _shape(pairs: Iterable[str] | None) -> dict[str, Any]:
    """`workers.io.concurrency=4` as `{"workers": {"io": {"concurrency": 4}}}`; values as in YAML."""
    shape: dict[str, Any] = {}
    for pair in pairs or ():
        path, equals, text = pair.partition("=")
        *above, last = path.split(".")
        place = shape
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"--config {pair}: {part} was given a value of its own already")
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise UsageError(f"--config {pair}: write PATH=VALUE, as workers.default.concurrency=2")
    return shape


def _request(
    target: Target,
    name: Name = None,
    engine: EngineName = "auto",
    platform: PlatformName = None,
    cluster: ClusterName = None,
    dedicated: Dedicated = False,
    port: ApiPort = None,
    database_url: DatabaseUrl = None,
    pod_template: PodTemplate = None,
    airflow_image: AirflowImage = None,
    rotate: Rotate = False,
    options: Options = None,
    config: Config = None,
    extras: Extras = None,
) -> Lab:
    """The lab that a command line asks for, with all that may be said of one."""
    return Lab.request(
        target,
        name=name,
        engine=engine,
        platform=platform,
        cluster=cluster,
        dedicated=dedicated,
        api_port=port,
        database_url=database_url,
        pod_template=pod_template,
        airflow_image=airflow_image,
        rotate=rotate,
        options=_options(options),
        extras=extras or (),
        shape=_shape(config),
    )


def _of_a_request(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb of a lab that is asked for: on the command line, the parameters of `_request` stand for its `lab`."""
    asked = signature(_request, eval_str=True).parameters
    own = {name: each for name, each in signature(verb, eval_str=True).parameters.items() if name != "lab"}

    def command(**given: Any) -> None:
        verb(_request(**{name: given[name] for name in asked}), **{name: given[name] for name in own})

    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = Signature([*{**asked, **own}.values()])  # type: ignore[attr-defined]
    return command


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _where(outputs: Any) -> None:
    """What a learner needs to go on."""
    user, password = outputs["admin_user"], outputs["admin_password"]
    if "cluster" in outputs:
        out.print(f"export KUBECONFIG={outputs['cluster']['kubeconfig']}", soft_wrap=True)
    out.print(f"[bold]{outputs['api_url']}[/]  user [bold]{user}[/]  password [bold]{password}[/]")
    for flower in outputs["services"].get("flower", ()):
        out.print(f"[bold]http://{flower['endpoints']['http']}[/]  Flower, the same user and password")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show the labs and the sections of the curriculum that each serves."""
    from components.dag_folder import section_folders  # Pulumi takes a moment to import

    there = [section for section in SECTIONS if section_folders([section])]
    served = {lab.name: [section for section in there if section in lab.sections] for lab in LABS.values()}
    if as_json:
        _print_json(
            {
                lab.name: {
                    "teaches": lab.teaches,
                    "executors": lab.executors,
                    "sections": served[lab.name],
                    "platforms": lab.platforms,
                }
                for lab in LABS.values()
            }
        )
        return
    table = Table("lab", "teaches", "executors", "sections", "runs on", box=None, header_style="bold")
    for narrow in table.columns[2:]:
        narrow.max_width = 10
    for lab in LABS.values():
        executors = " ".join(class_name(executor).removesuffix("Executor") for executor in lab.executors)
        table.add_row(lab.name, lab.teaches, executors, " ".join(served[lab.name]), " ".join(lab.platforms))
    out.print(table)
    titles = Table("section", "title", "lab", box=None, header_style="bold")
    for section in SECTIONS.values():
        titles.add_row(section.number, section.title, section.lab if section.number in there else "no DAGs yet")
    out.print()
    out.print(titles)


@app.command()
@_of_a_request
def up(
    lab: Lab,
    target: Target,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then run the lab's scenarios and write the report.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was made when a first `up` fails.")] = False,
    ttl: Annotated[
        str | None, typer.Option(metavar="2h", help="How long it may live: `lab gc` then takes it down.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Bring a lab up, or bring a running one to what is asked for."""
    if verify:
        from labs.verify import check_verifiable

        check_verifiable(lab.asked_platform)
    seconds = None if ttl is None else collector.seconds_of(ttl)
    with watching(f"lab {lab.name} on {lab.engine.name} engine", quiet) as watch:
        lab = lab.up(watch, keep=keep)
    collector.expire(lab.name, seconds)
    if as_json:
        _print_json(lab.outputs)
    elif not quiet:
        _where(lab.outputs)
    if verify:
        raise typer.Exit(_verify(lab.name, target if target in SECTIONS else None, (), quiet))


@app.command()
@_of_a_request
def preview(lab: Lab, as_json: Json = False) -> None:
    """Show what `up` would make, change, replace and delete, and why."""
    steps = lab.preview()
    if as_json:
        _print_json([{"operation": s.operation, "type": s.type, "name": s.name, "reason": s.reason} for s in steps])
        return
    changes = [step for step in steps if is_change(step)]
    colours = {"create": "green", "update": "yellow", "replace": "magenta", "delete": "red"}
    for step in changes:
        kind = step.type.rpartition(":")[2]
        what = f"[{colours[step.operation]}]{step.operation:8}[/] {kind:12} {step.name:24}"
        out.print(f"{what} [dim]{escape(step.reason)}[/]")
    same = sum(step.operation == "same" for step in steps)
    out.print(f"{plural(len(changes), 'change')}, {same} unchanged")


@app.command()
def down(name: Existing, quiet: Quiet = False) -> None:
    """Take a lab down to nothing."""
    lab = Lab.of(name)
    with watching(f"lab {lab.name} down", quiet) as watch:
        lab.down(watch)


@app.command()
def gc(quiet: Quiet = False, as_json: Json = False) -> None:
    """Take down labs whose time is over, and remove what belongs to no lab any more."""
    with watching("collected", quiet or as_json) as watch:
        removed = collector.collect(watch)
    if as_json:
        _print_json(removed)
    elif not quiet:
        out.print("\n".join(map(escape, removed)) or "nothing to remove", soft_wrap=True)


@app.command()
def verify(
    name: Existing,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", "-k", help="Part of a scenario's name, such as 35_02_01; repeatable."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also the scenarios that take minutes.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run the lab's scenarios and write the report."""
    section = name if name in SECTIONS else None
    raise typer.Exit(_verify(Lab.of(name).name, section, only or (), quiet, everything))


def _verify(name: str, section: str | None, only: Iterable[str], quiet: bool, everything: bool = False) -> int:
    from labs.verify import verify_lab

    return verify_lab(name, section=section, only=tuple(only), everything=everything, quiet=quiet)


@app.command()
def status(name: Existing, as_json: Json = False) -> None:
    """Show the lab's services, addresses and memory."""
    from dataclasses import asdict

    lab = Lab.of(name)
    if lab.platform == "docker":
        from components.platforms.docker import inspection

        states = inspection.inspect([(name, str(log)) for name, log in log_files(lab.outputs).items()])
    elif lab.platform == "kubernetes":
        from components.platforms.kubernetes import inspection as pods

        states = pods.inspect(lab.outputs)
    else:
        from components.platforms.process.inspection import inspect
        from labs.paths import run_directory

        states = inspect(run_directory(lab.name), list(log_files(lab.outputs)))
    if as_json:
        _print_json(
            {
                "name": lab.name,
                "lab": lab.outputs["lab"],
                "engine": lab.engine.name,
                "api_url": lab.outputs["api_url"],
                "notes": lab.outputs.get("notes", []),
                "services": [asdict(state) for state in states],
            }
        )
    else:
        table = Table("service", "state", "pid", "up", "processes", "memory", box=None, header_style="bold")
        for state in states:
            colour = "green" if state.state in WELL else "red"
            memory = f"{state.memory / 2**20:.0f} MiB"
            row = (str(state.pid or "-"), duration(state.uptime), str(state.processes), memory)
            table.add_row(state.name, f"[{colour}]{state.state.lower()}[/]", *row)
        total = sum(state.memory for state in states) / 2**20
        executors = ", ".join(map(class_name, lab.executors))
        facts = f"lab {lab.outputs['lab']}, {executors}, engine {lab.engine.name}, {total:.0f} MiB"
        out.print(f"[bold]{lab.name}[/]: {facts}")
        out.print(table)
        for note in lab.outputs.get("notes", ()):
            out.print(note, soft_wrap=True)
        _where(lab.outputs)
    if any(state.state not in WELL for state in states):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def logs(
    name: Existing,
    service: Annotated[str | None, typer.Argument(help="One service; all otherwise.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 30,
) -> None:
    """Show the logs of the lab's services."""
    lab = Lab.of(name)
    files = log_files(lab.outputs)
    if service is not None and service not in files:
        raise UsageError(f"there is no service {service!r} in {name}: choose {', '.join(files)}")
    chosen = [str(path) for replica, path in files.items() if service in (None, replica)]
    sys.stdout.flush()
    if lab.platform == "docker":
        from components.platforms.docker.inspection import show_logs

        show_logs(chosen, lines, follow)
        return
    if lab.platform == "kubernetes":
        from components.platforms.kubernetes import inspection as pods

        pods.show_logs(lab.outputs, [replica for replica in files if service in (None, replica)], lines, follow)
        return
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), *chosen])


@app.command("open")
def open_(name: Existing) -> None:
    """Show where Airflow's UI is and open it in a browser where there is one."""
    outputs = Lab.of(name).outputs
    _where(outputs)
    if sys.stdout.isatty() and (sys.platform == "darwin" or os.environ.get("DISPLAY")):
        webbrowser.open(outputs["api_url"])


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(metavar="LAB LAB...", help="Labs that were verified, up or not.")],
    section: Annotated[str | None, typer.Option(help="One section only, such as 35.5.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write an HTML page there, too.")] = None,
) -> None:
    """Put the last `verify` of several labs side by side: verdicts, why they differ, and what DAGs computed."""
    from labs.verify import compare_labs

    raise typer.Exit(compare_labs(names, section, output))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run, and what to do about the rest."""
    from labs.doctor import examine

    findings = examine()
    if as_json:
        _print_json([vars(finding) for finding in findings])
    else:
        marks = {"ok": "[green]✓[/]", "missing": "[yellow]–[/]", "broken": "[red]✗[/]"}
        table = Table("", "what", "found", "to do", box=None, header_style="bold")
        for finding in findings:
            table.add_row(marks[finding.verdict], finding.what, escape(finding.found), escape(finding.advice))
        out.print(table)
    if any(finding.verdict == "broken" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def report(
    name: Existing,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to copy the report to.")] = None,
) -> None:
    """Write the report of the last `verify` again, and say where it is."""
    from labs.verify import rewrite_report

    html, junit = rewrite_report(name, output)
    out.print(f"{html}\n{junit}", soft_wrap=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what takes longer: every mutation, fault and engine.")
    ] = False,
    all_process: Annotated[
        bool, typer.Option("--all-process", help="Instead all scenarios of all labs on processes.")
    ] = False,
    all_docker: Annotated[
        bool, typer.Option("--all-docker", help="Instead all scenarios of all labs in containers.")
    ] = False,
    all_kubernetes: Annotated[
        bool, typer.Option("--all-kubernetes", help="Instead all scenarios of all labs in a kind cluster.")
    ] = False,
) -> None:
    """Run the project's own tests, then a real local lab with its scenarios. Further arguments go to pytest."""
    from labs.selftest import run_tests, verify_platform

    asked = {"process": all_process, "docker": all_docker, "kubernetes": all_kubernetes}
    platforms = [name for name, wanted in asked.items() if wanted]
    codes = [verify_platform(platform) for platform in platforms] or [run_tests(everything, context.args)]
    raise typer.Exit(next(filter(None, codes), ExitCode.OK))


app.add_typer(images_cli.app, name="images")

bench = typer.Typer(help="Measure against peers.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command()
def startup(
    rounds: Annotated[int, typer.Option(min=1, help="Alternating rounds; the medians count.")] = 3,
    as_json: Json = False,
) -> None:
    """`up local` to the first successful DAG run, against `airflow standalone` to the same."""
    from labs.bench import bench_startup

    results = bench_startup(rounds)
    if as_json:
        _print_json(results)


@bench.command("labs")
def labs_(
    targets: Annotated[list[str] | None, typer.Argument(metavar="LAB", help="These; all otherwise.")] = None,
    platform: Annotated[str, typer.Option(help="The labs of this platform.")] = "process",
    as_json: Json = False,
) -> None:
    """Each lab from `up` to its first successful DAG run, its memory when idle, and `down`."""
    from labs.bench import bench_labs

    results = bench_labs(platform, targets or ())
    if as_json:
        _print_json(results)


@bench.command()
def pods(
    runs: Annotated[int, typer.Option(min=1, help="Trivial runs; the medians count.")] = 10,
    as_json: Json = False,
) -> None:
    """Where the time of a task in a pod goes, and what the lab `kubernetes` and a second one on its cluster cost."""
    from labs.bench_pods import bench_pods

    results = bench_pods(runs)
    if as_json:
        _print_json(results)


def _end(message: str, code: int) -> NoReturn:
    err.print(f"[red]lab:[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; every failure that a user can meet ends as one sentence and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    with contextlib.suppress(LabError):  # who uses the CLI from the root hears of it from the CLI
        pulumi_home.prepare(PROJECT_ROOT, STACKS)
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        _end(error.format_message(), ExitCode.USAGE)
    except LabError as error:
        _end(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _end("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.FAILED
    freeze()  # or Python looks through all that was imported once more before it ends, for up to a second
    sys.exit(code or 0)
