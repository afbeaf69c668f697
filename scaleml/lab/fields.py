"""Form fields: one control for one field of a dataclass, chosen by the field's type."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import ipywidgets as widgets
import traitlets

from scaleml.lab import entry, tips

NONE = "none"
THREE = {None: "auto", True: "yes", False: "no"}


@dataclass(frozen=True)
class Field:
    """A control and what it stands for.

    Parameters
    ----------
    name : str
        The dataclass field's.
    box : Widget
        What is shown.
    read : callable
        Returns the value; raises ValueError for what is none.
    write : callable
        Shows a value.
    """

    name: str
    box: widgets.Widget
    read: Callable[[], Any]
    write: Callable[[Any], None]


class Pages(widgets.Stack):
    """Pages of which a menu shows one: in the browser, so that it turns also while the kernel is busy."""

    def __init__(self, menu: Any, pages: Sequence[widgets.Widget]) -> None:
        super().__init__(list(pages), selected_index=menu.index, layout=widgets.Layout(width="auto"))
        self.add_class("scaleml-pages")
        self.link = widgets.jslink((menu, "index"), (self, "selected_index"))


def field_for(kind: type, name: str, hint: Any, start: Any) -> Field | None:
    """Return the control of one field, or None for a type that no control can give.

    Parameters
    ----------
    kind : type
        The dataclass; its docstring may name the choices of a text: ``consistency : {"bsp", "async"}``.
    name, hint, start
        Of the field; `start` may be ``MISSING``.
    """
    inner, optional = without_none(hint)
    tip = tips.settings(kind).get(name, "")
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    if get_origin(inner) in (Union, UnionType):  # of texts, and objects that a menu cannot make
        choices = tuple(text for part in get_args(inner) if get_origin(part) is Literal for text in get_args(part))
        if start is not MISSING and start not in choices:
            return None
    if inner is str and not choices:
        choices = _documented(kind, name)
    if choices:
        return _choice(name, [*choices, *([None] if optional and None not in choices else [])], start, tip)
    if inner is bool:
        return _choice(name, [None, True, False], start, tip, THREE) if optional else _switch(name, start, tip)
    if inner in (int, float):
        return _number(name, inner, optional, start, tip)
    if inner is str:
        return _text(name, optional, start, tip)
    if get_origin(inner) is tuple and get_args(inner) == (int, ...):
        return _typed(name, start, entry.several(_label(name)), tip, NONE, "medium")
    return None


def without_none(hint: Any) -> tuple[Any, bool]:
    """Take the None out of a union; a union of several others stays as it is."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    others = [part for part in get_args(hint) if part is not NoneType]
    return (others[0] if len(others) == 1 else hint), len(others) < len(get_args(hint))


def _documented(kind: type, name: str) -> tuple[str, ...]:
    """Return the choices that a numpydoc docstring gives for a text."""
    found = re.search(rf"^\s*{name} : \{{(.*?)\}}", kind.__doc__ or "", re.MULTILINE)
    return tuple(re.findall(r"[\"']([^\"']+)[\"']", found[1])) if found else ()


def _label(name: str) -> str:
    return name.replace("_", " ")


def auto() -> widgets.Layout:
    """Return the layout of a control that is as wide as it needs."""
    return widgets.Layout(width="auto", margin="0 2px")


class Hint(widgets.HBox):
    """A box that says what it is about when the mouse rests on it, on its label as well as on its field."""

    # A page asks whatever has a tooltip for its description, too.
    description = traitlets.Unicode("").tag(sync=True)


def labelled(name: str, control: Any, tip: str = "") -> widgets.Widget:
    """Return a control with its label before it, as one box that is never torn apart; the label is the control's own."""
    control.description, control.style.description_width = _label(name), "auto"
    layout = widgets.Layout(width="auto", margin="0 10px 0 0", align_items="center")
    return Hint([control], tooltip=tip or None, layout=layout)


def above(name: str, control: Any, tip: str = "") -> widgets.Widget:
    """Return a control with its label above it."""
    box = labelled(name, control, tip)
    control.add_class("scaleml-above")
    box.layout.margin = "0 8px 0 0"
    return box


def silent(name: str, control: Any, tip: str = "") -> widgets.Widget:
    """Return a control whose label only screen readers see: others see what it belongs to."""
    box = labelled(name, control, tip)
    control.add_class("scaleml-silent")
    return box


def button(text: str, hint: str, icon: str = "", style: str = "", *, disabled: bool = False) -> Any:
    """Return a button that is as wide as its text."""
    layout = widgets.Layout(width="auto")
    return widgets.Button(
        description=text, tooltip=hint, icon=icon, button_style=style, disabled=disabled, layout=layout
    )


def _choice(name: str, choices: Sequence[Any], start: Any, tip: str, labels: dict[Any, str] | None = None) -> Field:
    # By index: for a menu of widgets, None would be the absence of a choice.
    shown = [(labels or {None: NONE}).get(choice, str(choice)) for choice in choices]
    at = choices.index(start) if start in choices else 0
    control = widgets.Dropdown(options=shown, index=at, layout=auto())

    def write(given: Any) -> None:
        control.index = choices.index(given)

    return Field(name, labelled(name, control, tip), lambda: choices[control.index], write)


def _switch(name: str, start: Any, tip: str) -> Field:
    control = widgets.Checkbox(value=start is True, indent=False, layout=auto())
    return Field(
        name, labelled(name, control, tip), lambda: bool(control.value), lambda given: _set(control, bool(given))
    )


def _number(name: str, kind: type, optional: bool, start: Any, tip: str) -> Field:
    parse: Callable[[str], Any] = entry.whole(_label(name), None) if kind is int else entry.real(_label(name))
    if optional:
        return _typed(name, start, entry.maybe(parse), tip, NONE)
    return _typed(name, (2 if kind is int else 0.1) if start is MISSING else start, parse, tip)


def _text(name: str, optional: bool, start: Any, tip: str) -> Field:
    return _typed(name, start, lambda text: text or (None if optional else ""), tip, NONE if optional else "")


def _typed(
    name: str, start: Any, parse: Callable[[str], Any], tip: str, empty: str = "", width: str = "short"
) -> Field:
    """Make a control of free text, which `parse` understands."""
    text = "" if start is MISSING else entry.shown(start)
    control = entry.Entry(parse, text, placeholder=empty, width="medium" if len(text) > 6 else width)
    return Field(name, labelled(name, control, tip), control.read, lambda given: _set(control, entry.shown(given)))


def _set(control: Any, value: Any) -> None:
    if control.value != value:
        control.value = value
