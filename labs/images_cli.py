"""`lab images`: the container images of the docker platform."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.table import Table

from labs.console import duration, err, out

app = typer.Typer(help="Container images of the docker platform.", no_args_is_help=True)


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Some; all otherwise.")] = None,
) -> None:
    """Build what is missing, from Debian and Python packages alone."""
    from labs import images

    wanted = {name: images.reference(name) for name in names or images.RECIPES}

    def one(name: str) -> None:
        begun = time.monotonic()
        images.build(name, lambda line: err.print(f"  {line} …"))
        err.print(f"  [green]✓[/] {name} [dim]{duration(time.monotonic() - begun)}[/]")

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, wanted):
            pass


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")] = False,
) -> None:
    """Show the images, and which of them are there."""
    from labs import images

    found = images.sizes()
    if as_json:
        typer.echo(
            json.dumps({name: {"reference": ref, "bytes": size} for name, (ref, size) in found.items()}, indent=2)
        )
        return
    table = Table("image", "name", "unpacked", box=None, header_style="bold")
    for name, (reference, size) in found.items():
        table.add_row(name, reference, f"{size / 2**20:.0f} MiB" if size else "[dim]not built[/]")
    out.print(table)
