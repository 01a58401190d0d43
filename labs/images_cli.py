"""`lab images`: the container images of the docker and kubernetes platforms."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.table import Table

from labs.console import duration, err, out

app = typer.Typer(help="Container images of the docker and kubernetes platforms.", no_args_is_help=True)

NODE = "node"
"""The image of kind's nodes; it takes minutes, so nobody gets it without asking."""


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Some; all otherwise.")] = None,
) -> None:
    """Build what is missing, from Debian, Python and Go packages alone; `node`, of kind clusters, only by its name."""
    from labs import images, node_image

    wanted = {name: name == NODE or images.reference(name) for name in names or images.RECIPES}

    def one(name: str) -> None:
        begun = time.monotonic()

        def tell(line: str) -> None:
            err.print(f"  {line} …")

        node_image.build(tell) if name == NODE else images.build(name, tell)
        err.print(f"  [green]✓[/] {name} [dim]{duration(time.monotonic() - begun)}[/]")

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, wanted):
            pass


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")] = False,
) -> None:
    """Show the images, and which of them are there."""
    from labs import images, node_image

    found = {**images.sizes(), NODE: node_image.present()}
    if as_json:
        typer.echo(
            json.dumps({name: {"reference": ref, "bytes": size} for name, (ref, size) in found.items()}, indent=2)
        )
        return
    table = Table("image", "name", "unpacked", box=None, header_style="bold")
    for name, (reference, size) in found.items():
        table.add_row(name, reference, f"{size / 2**20:.0f} MiB" if size else "[dim]not built[/]")
    out.print(table)
