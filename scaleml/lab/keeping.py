"""Keeping: the row below the table that takes things away with it. The table as CSV, the program, names; and who goes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import ipywidgets as widgets

from scaleml.escaping import escape
from scaleml.lab.fields import auto, button, labelled, silent
from scaleml.lab.kept_runs import Key, keys_of
from scaleml.telemetry import Comparison
from scaleml.telemetry.run_like import RunLike

FILE: Final = "comparison.csv"
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets compute instead of show."""
_COPY: Final = """
const row = this.closest('.scaleml-links'), said = row.querySelector('[role=status]');
const more = row.querySelector('details'), code = more.querySelector('pre');
const fail = () => { more.open = true; getSelection().selectAllChildren(code);
  said.textContent = 'The browser does not let it be copied: here it is.'; };
const copied = navigator.clipboard ? navigator.clipboard.writeText(code.textContent) : Promise.reject();
copied.then(() => { said.textContent = 'Copied.'; }, fail);
"""
"""Run by the page, which alone has a clipboard: without the kernel, so that it also works while that is busy."""


@final
class Keeping:
    """A download of the table, the program to copy, and the contenders to rename or delete.

    Parameters
    ----------
    rename : callable
        Called with a contender's key and the name that was typed.
    delete : callable
        Called with a contender's key.

    Attributes
    ----------
    box : Widget
        All of it; not shown before there are runs.
    menu : Dropdown
        The contenders; its value is the key of one.
    name : Text
    rename, delete : Button
    links : HTML
        What the page does alone.

    Examples
    --------
    >>> keeping = Keeping(rename=lambda key, name: None, delete=lambda key: None)
    >>> keeping.show(Comparison([]), "", busy=False)
    >>> keeping.box.layout.display
    'none'
    """

    def __init__(self, rename: Callable[[Key, str], object], delete: Callable[[Key], object]) -> None:
        self._calls = (rename, delete)
        self.links = widgets.HTML()
        self.menu = widgets.Dropdown(layout=auto())
        self.name = widgets.Text(placeholder="new name", continuous_update=False, layout=auto())
        self.name.add_class("scaleml-medium")
        self.rename = button("Rename", "Call all rounds of this run by the name that is typed beside it", "pencil")
        self.delete = button("Delete", "Forget all rounds of this run: they do not come back", "trash")
        self.rename.on_click(self._on_rename)
        self.delete.on_click(self._on_delete)
        wrap = widgets.Layout(flex_flow="row wrap", align_items="center")
        chosen = labelled("run", self.menu, "The run that is renamed or deleted")
        parts = [chosen, silent("new name", self.name, "What the run is to be called"), self.rename, self.delete]
        self.box = widgets.VBox([self.links, widgets.HBox(parts, layout=wrap)], layout=widgets.Layout(display="none"))
        self.box.add_class("scaleml-keeping")
        self._runs: tuple[RunLike, ...] = ()
        self._state: Any = None

    def show(self, comparison: Comparison, program: str, busy: bool) -> None:
        """Renew what has changed: of a comparison under way nothing can be taken."""
        runs = comparison.runs
        state = (busy, program, [(run.label, run.state) for run in runs])
        if state == self._state and _are(runs, self._runs):
            return
        self._runs, self._state = runs, state
        _set(self.box.layout, "display", None if runs else "none")
        for control in (self.menu, self.name, self.rename, self.delete):
            _set(control, "disabled", busy)
        _set(self.links, "value", _links("" if busy or not runs else csv_of(comparison), "" if busy else program))
        if not busy:
            self._offer(runs)

    def _offer(self, runs: Sequence[RunLike]) -> None:
        options = contenders(runs)
        if list(self.menu.options) != options:
            chosen = self.menu.value
            self.menu.options = options
            self.name.value = ""
            keys = [key for _, key in options]  # a menu that was empty chooses nothing of itself
            self.menu.index = keys.index(chosen) if chosen in keys else (0 if keys else None)

    def _on_rename(self, _: object) -> None:
        if self.menu.value is not None:
            self._calls[0](self.menu.value, self.name.value)

    def _on_delete(self, _: object) -> None:
        if self.menu.value is not None:
            self._calls[1](self.menu.value)


def contenders(runs: Sequence[RunLike]) -> list[tuple[str, Key]]:
    """Return each contender's name, no two alike, and its key, in the order of the table."""
    names = {key: run.label for key, run in zip(reversed(keys_of(runs)), reversed(runs), strict=True)}
    found: dict[str, Key] = {}
    for key in dict.fromkeys(keys_of(runs)):
        name, count = names[key], 1
        while name in found:
            count += 1
            name = f"{names[key]} ({count})"
        found[name] = key
    return list(found.items())


def csv_of(comparison: Comparison) -> str:
    """Return the table as comma-separated values, no text of which a spreadsheet takes for a formula."""
    table = comparison.table()
    return str(table.map(_safe).to_csv(index=False))


def _safe(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _links(csv: str, program: str) -> str:
    """Return what the page does without the kernel; switched off for what is empty."""
    kind = 'class="jupyter-button widget-button"'
    # With a byte order mark, without which some spreadsheets take it for another encoding.
    href = f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv.encode('utf-8-sig')).decode()}"
    about = 'title="The table, a row a strategy, for spreadsheets and pandas"'
    download = f'<a {kind} {about} download="{FILE}" href="{href}">Download CSV</a>'
    if not csv:
        download = f'<button {kind} {about} type="button" disabled>Download CSV</button>'
    click = f'onclick="{escape(" ".join(_COPY.split()))}"' if program else "disabled"
    about = 'title="The Python program that makes this comparison without the lab"'
    copy = f'<button {kind} {about} type="button" {click}>Copy as code</button>'
    shown = f"<details><summary>Show the code</summary><pre>{escape(program)}</pre></details>" if program else ""
    return f'<div class="scaleml-links">{download}{copy}<span role="status" class="scaleml-soft"></span>{shown}</div>'


def _are(some: Sequence[RunLike], others: Sequence[RunLike]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _set(widget: Any, name: str, value: object) -> None:
    if getattr(widget, name) != value:
        setattr(widget, name, value)
