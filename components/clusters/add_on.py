"""Cluster add-ons: what all labs of a cluster share, and what outlives each of them.

On a kind cluster an add-on is applied, and stays until that goes; a cluster of the user's has it already, or no lab
that asks for it. What somebody else has put there is used as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from labs.cluster import MANAGER, Cluster, Object
from labs.engines.kubernetes import apply, remove, wait_ready
from labs.errors import LabError

OURS = {"app.kubernetes.io/managed-by": MANAGER}
"""Labels of what these labs have put into a cluster for all of them."""


def objects(file: str, images: Mapping[str, str]) -> list[Object]:
    """What is applied, in that order.

    Args:
        file: beside this one.
        images: name and tag, by the word that stands for it there.
    """
    text = Path(__file__).with_name(file).read_text()
    for word, image in images.items():
        text = text.replace(f"image: {word}\n", f"image: {image}\n")
    found = list(yaml.safe_load_all(text))
    for each in found:
        each["metadata"]["labels"] = {**each["metadata"].get("labels", {}), **OURS}
    return found


def install(api: Cluster, mark: str, wanted: list[Object], works: Callable[[list[Object]], None]) -> None:
    """Apply an add-on, unless it is somebody else's, and wait until it works; one that is new and does not is removed.

    Args:
        mark: path of the object that tells whether it is there, and whose.
        works: waits for that; it is given what was applied.
    """
    found = api.found(mark)
    made: list[Object] = []
    try:
        if found is None or OURS.items() <= (found["metadata"].get("labels") or {}).items():
            for each in wanted:
                made.append(apply(api, each))
                if each["kind"] == "CustomResourceDefinition":
                    wait_ready(api, made[-1])  # before whoever looks for objects of that kind
        works(made)
    except BaseException:
        for each in reversed(made if found is None else []):
            with contextlib.suppress(LabError):
                remove(api, each)
        raise
