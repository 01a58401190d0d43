"""Writes the two files; nothing secret gets into either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs.report.junit import junit
from labs.report.page import COMPARISON, page
from labs.results import Results, redacted, secrets_of


def write_report(outputs: Mapping[str, Any], results: Results, directory: Path) -> tuple[Path, Path]:
    """Write `report.html` and `junit.xml` into `directory`, which is made when needed.

    A comparison that lies there already is linked.

    Args:
        outputs: of the lab; `engine` in it is shown too.

    Returns:
        The paths of the HTML file and of the XML file.
    """
    secrets = secrets_of(outputs)
    shown = redacted(outputs, secrets)
    clean = Results.from_json(redacted(results.to_json(), secrets))
    directory.mkdir(parents=True, exist_ok=True)
    html_path, junit_path = directory / "report.html", directory / "junit.xml"
    html_path.write_text(page(shown, clean, compared=(directory / COMPARISON).exists()), encoding="utf-8")
    junit_path.write_text(junit(clean), encoding="utf-8")
    return html_path, junit_path
