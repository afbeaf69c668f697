"""Widget trees: a widget, and all that it refers to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ipywidgets as widgets


def close(roots: Iterable[widgets.Widget]) -> None:
    """Close widgets and their children, layouts, styles, marks, axes, scales and links."""
    found: dict[int, Any] = {}
    for root in roots:
        _gather(root, found)
    for part in found.values():
        part.close()


def _gather(widget: Any, found: dict[int, Any]) -> None:
    if id(widget) in found:
        return
    found[id(widget)] = widget
    for value in (*(getattr(widget, name) for name in widget.keys), getattr(widget, "link", None)):
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for part in parts:
            if isinstance(part, widgets.Widget):
                _gather(part, found)
