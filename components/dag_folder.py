"""The DAG folder: the sections of the curriculum that a lab serves, as every component sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi

from components.platforms.base import Platform, Volume
from labs.errors import UsageError

DAGS = Path(__file__).resolve().parent.parent / "dags"


@dataclass(frozen=True)
class DagFolderArgs:
    """What a DAG folder is made from.

    Attributes:
        platform: where the components run.
        sections: numbers of the curriculum's sections, such as `35.2`.
    """

    platform: Platform
    sections: Sequence[str]


def section_folders(sections: Sequence[str], root: Path = DAGS) -> list[Path]:
    """The folders of the sections that have DAGs in this checkout."""
    prefixes = ["section_{}_{:02d}_".format(*map(int, section.split("."))) for section in sections]
    return sorted(folder for prefix in prefixes for folder in root.glob(f"{prefix}*"))


class DagFolder(pulumi.ComponentResource):
    """A folder with the DAGs of a lab's sections.

    Attributes:
        volume: the folder.

    Raises:
        UsageError: no section has a DAG here.
    """

    volume: Volume

    def __init__(self, name: str, args: DagFolderArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("labs:airflow:DagFolder", name, {}, opts)
        folders = section_folders(args.sections)
        if not folders:
            raise UsageError(f"DagFolderArgs.sections {', '.join(args.sections)}: no such folder below {DAGS}")
        self.volume = args.platform.volume(name, folders, pulumi.ResourceOptions(parent=self))
        self.register_outputs({"path": self.volume.path})
