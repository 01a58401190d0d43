"""Engines: what applies the Pulumi program of a lab."""

from __future__ import annotations

import shutil
from pathlib import Path

from labs.engines.base import Engine
from labs.errors import UsageError

NAMES = ("auto", "embedded", "pulumi")


def select(name: str, project_root: Path) -> Engine:
    """The engine of that name; `auto` takes the Pulumi CLI when it is on the PATH.

    Args:
        project_root: the folder of `Pulumi.yaml`; the Pulumi CLI's state lives below it.

    Raises:
        UsageError: an unknown name, or `pulumi` where there is no Pulumi CLI.
    """
    if name not in NAMES:
        raise UsageError(f"there is no engine {name!r}; use one of {', '.join(NAMES)}")
    # Imported late: Pulumi's SDK takes half a second that most commands need not spend.
    if name == "pulumi" or (name == "auto" and shutil.which("pulumi")):
        from labs.engines.pulumi_cli import PulumiEngine

        return PulumiEngine(project_root)
    from labs.engines import docker, kubernetes
    from labs.engines.embedded import EmbeddedEngine

    return EmbeddedEngine({**docker.PROVIDERS, **kubernetes.PROVIDERS})
