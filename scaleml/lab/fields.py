"""Form fields: one control for one field of a dataclass, chosen by the field's type."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import ipywidgets as widgets

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
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    if inner is str and not choices:
        choices = _documented(kind, name)
    if choices:
        return _choice(name, [*choices, *([None] if optional and None not in choices else [])], start)
    if inner is bool:
        return _choice(name, [None, True, False], start, THREE) if optional else _switch(name, start)
    if inner in (int, float):
        return _number(name, inner, optional, start)
    if inner is str:
        return _text(name, optional, start)
    if get_origin(inner) is tuple and get_args(inner) == (int, ...):
        return _numbers(name, start)
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


def narrow(width: str = "76px") -> widgets.Layout:
    """Return the layout of a small input."""
    return widgets.Layout(width=width, margin="0 2px")


def labelled(name: str, control: widgets.Widget) -> widgets.Widget:
    """Return a control with its label before it, as one box that is never torn apart."""
    label = widgets.Label(_label(name), layout=widgets.Layout(width="auto", margin="0 2px 0 0"))
    return widgets.HBox(
        [label, control], layout=widgets.Layout(width="auto", margin="0 10px 0 0", align_items="center")
    )


def button(text: str, hint: str, icon: str = "", style: str = "", *, disabled: bool = False) -> Any:
    """Return a button that is as wide as its text."""
    layout = widgets.Layout(width="auto")
    return widgets.Button(
        description=text, tooltip=hint, icon=icon, button_style=style, disabled=disabled, layout=layout
    )


def above(name: str, control: widgets.Widget) -> widgets.Widget:
    """Return a control with its label above it."""
    label = widgets.HTML(f'<span class="scaleml-head">{_label(name)}</span>')
    return widgets.VBox([label, control], layout=widgets.Layout(width="auto", margin="0 8px 0 0"))


def _choice(name: str, choices: Sequence[Any], start: Any, labels: dict[Any, str] | None = None) -> Field:
    # By index: for a menu of widgets, None would be the absence of a choice.
    shown = [(labels or {None: NONE}).get(choice, str(choice)) for choice in choices]
    at = choices.index(start) if start in choices else 0
    control = widgets.Dropdown(options=shown, index=at, layout=narrow("auto"))

    def write(given: Any) -> None:
        control.index = choices.index(given)

    return Field(name, labelled(name, control), lambda: choices[control.index], write)


def _switch(name: str, start: Any) -> Field:
    control = widgets.Checkbox(
        value=start is True,
        description=_label(name),
        indent=False,
        layout=widgets.Layout(width="auto", margin="0 12px 0 2px"),
    )
    return Field(name, control, lambda: bool(control.value), lambda given: _set(control, bool(given)))


def _number(name: str, kind: type, optional: bool, start: Any) -> Field:
    if optional:
        return _typed(name, start, lambda text: _parse(name, kind, text) if text else None, NONE)
    first = start if start is not MISSING else (2 if kind is int else 0.1)
    room = narrow(f"{max(76, 36 + 8 * len(f'{first:.12g}'))}px")
    control: Any = (widgets.IntText if kind is int else widgets.FloatText)(value=first, layout=room)
    return Field(name, labelled(name, control), lambda: kind(control.value), lambda given: _set(control, given))


def _text(name: str, optional: bool, start: Any) -> Field:
    return _typed(name, start, lambda text: text or (None if optional else ""), NONE if optional else "")


def _numbers(name: str, start: Any) -> Field:
    def read(text: str) -> tuple[int, ...]:
        return tuple(_parse(name, int, part) for part in text.replace(",", " ").split())

    shown = ", ".join(map(str, start)) if start is not MISSING else ""
    return _typed(name, shown, read, "none", "110px")


def _typed(name: str, start: Any, read: Callable[[str], Any], empty: str, width: str = "76px") -> Field:
    """Make a control of free text, which `read` understands."""

    def show(value: Any) -> str:
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        return "" if value is None or value is MISSING else str(value)

    control = widgets.Text(value=show(start), placeholder=empty, layout=narrow(width))
    return Field(
        name,
        labelled(name, control),
        lambda: read(control.value.strip()),
        lambda given: _set(control, show(given)),
    )


def _parse(name: str, kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise ValueError(f"{_label(name)}: {text!r} is not {wanted}") from None


def _set(control: Any, value: Any) -> None:
    if control.value != value:
        control.value = value
