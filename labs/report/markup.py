"""A tree of HTML or SVG elements: whatever is put into it is escaped when it is written out."""

from __future__ import annotations

import re
from typing import TypeAlias
from xml.etree import ElementTree

Element: TypeAlias = ElementTree.Element

_NOT_TEXT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Text without what neither HTML nor XML can hold: control characters and a terminal's colour codes."""
    return _NOT_TEXT.sub("", text)


def el(tag: str, *children: Element | str | None, **attributes: str | float | None) -> Element:
    """One element. `class_` is class, `stroke_width` is stroke-width; None children and attributes are left out."""
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            made.set(name.rstrip("_").replace("_", "-"), clean(text))
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child and len(made):
            made[-1].tail = (made[-1].tail or "") + clean(child)
        elif child:
            made.text = (made.text or "") + clean(child)
    return made


def html(element: Element) -> str:
    return ElementTree.tostring(element, encoding="unicode", method="html")


def short(text: str, width: int) -> str:
    """The text in at most `width` characters, its middle left out."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[-half:]}"
