"""Static report: what stays in the saved file when there is no kernel. Plain HTML and a picture beside the widget."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from scaleml.escaping import escape
from scaleml.telemetry import Comparison

VIEW = "application/vnd.jupyter.widget-view+json"


def static(comparison: Comparison, words: str) -> dict[str, Any]:
    """Return text, HTML and PNG of what was found; of the words alone before there is anything."""
    if not comparison.runs:
        text = f"scaleml.Lab: {words}"
        return {"text/plain": text, "text/html": f"<p>{escape(text)}</p>"}
    return dict(comparison._repr_mimebundle_())


def living(box: widgets.Widget, comparison: Comparison, words: str) -> dict[str, Any]:
    """Return the widget's view, and what stands for it where there are no widgets."""
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    return {VIEW: view, **static(comparison, words)}
