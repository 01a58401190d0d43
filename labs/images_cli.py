"""`lab images`: the container images of the docker and kubernetes platforms."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from labs.console import duration, err, out, plural

if TYPE_CHECKING:
    from labs.images import Source

app = typer.Typer(help="Container images of the docker and kubernetes platforms.", no_args_is_help=True)

NODE = "node"
"""The image of kind's nodes; it takes minutes, so nobody gets it without asking."""

Names = Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Some; the usual ones otherwise.")]


@app.command()
def build(names: Names = None) -> None:
    """Build what is missing, from Debian, Python and Go packages alone.

    What takes minutes, and not every lab needs, only by its name: `node`, of kind clusters, `versitygw`,
    `metrics-server`, `keda` and `keda-adapter`.
    """
    _make(names, "packages")


@app.command()
def pull(names: Names = None) -> None:
    """Pull what is missing, and add to it what the labs need; labs then run on these images."""
    _make(names, "registry")


def _make(names: Sequence[str] | None, source: Source) -> None:
    from labs import images, node_image

    wanted = {name: name == NODE or images.reference(name, source) for name in names or images.USUAL}

    def tell(line: str) -> None:
        err.print(f"  {line} …")

    def one(name: str) -> None:
        begun = time.monotonic()
        if name != NODE:
            images.build(name, source, tell)
        elif source == "packages":
            node_image.build(tell)
        else:
            node_image.pull(tell)
        err.print(f"  [green]✓[/] {name} [dim]{duration(time.monotonic() - begun)}[/]")

    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, wanted):
            pass
    err.print(f"{plural(len(wanted), 'image')}: {duration(time.monotonic() - begun)}", style="bold")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")] = False,
) -> None:
    """Show the images, and which of them are there."""
    from labs import images, node_image

    used, why = images.chosen()
    found = {source: images.sizes(source) for source in images.FOLDERS}
    found["packages"][NODE], found["registry"][NODE] = node_image.sizes()
    if as_json:
        listed = {
            source: {name: {"reference": ref, "bytes": size} for name, (ref, size) in each.items()}
            for source, each in found.items()
        }
        typer.echo(json.dumps({"used": used, "images": listed}, indent=2))
        return
    table = Table("image", "from", "name", "unpacked", box=None, header_style="bold")
    for source, each in found.items():
        for name, (reference, size) in each.items():
            table.add_row(name, source, reference, f"{size / 2**20:.0f} MiB" if size else "[dim]not there[/]")
    out.print(table)
    out.print(f"\nLabs run on images from {used}, {why}.")
