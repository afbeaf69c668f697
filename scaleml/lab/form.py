"""Forms: controls for the settings of a dataclass, made from its fields. Nothing here knows any strategy by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Any, final, get_type_hints

import ipywidgets as widgets

from scaleml.lab import choices, tips
from scaleml.lab.fields import NONE, Field, Pages, auto, field_for, labelled, without_none

DEPTH = 2
"""How deep a choice may stand in a choice: a codec around a codec, and no further."""


@final
class Form:
    """The settings of one dataclass as controls.

    Parameters
    ----------
    kind : type
        The dataclass.
    start : object, optional
        Of that class: what the controls show at first. Default: the defaults.
    leave_out : iterable of str
        Fields that get no control and keep what `start` says.
    first : mapping of str to object
        First values of fields that have no default.
    depth : int
        How deep in other forms this one stands.

    Attributes
    ----------
    box : Widget
        All controls in a row that wraps.

    Examples
    --------
    >>> from scaleml import LocalSGD
    >>> form = Form(LocalSGD, LocalSGD(4))
    >>> form.value().period
    4
    """

    def __init__(
        self,
        kind: type,
        start: Any = None,
        *,
        leave_out: Iterable[str] = (),
        first: Mapping[str, Any] | None = None,
        depth: int = 0,
    ) -> None:
        self.kind = kind
        self._kept: dict[str, Any] = {}
        self._fields = []
        hints = get_type_hints(kind)
        for field in choices.settings(kind):
            value = choices.default(field) if start is None else getattr(start, field.name)
            if value is MISSING and first is not None:
                value = first.get(field.name, MISSING)
            made = None if field.name in leave_out else _field(kind, field.name, hints[field.name], value, depth)
            if made is not None:
                self._fields.append(made)
            elif start is not None:
                self._kept[field.name] = value
        layout = widgets.Layout(flex_flow="row wrap", align_items="center", width="auto")
        self.box = widgets.HBox([field.box for field in self._fields], layout=layout)

    @property
    def controls(self) -> list[widgets.Widget]:
        """The controls, for who wants to hear of changes or to switch them off."""
        return [part for part in _leaves(self.box) if hasattr(part, "disabled")]

    def value(self) -> Any:
        """Return the dataclass that the controls describe.

        Raises
        ------
        ValueError, TypeError
            With the message of the dataclass, for a value that breaks its rule.
        """
        return self.kind(**self.read())

    def read(self) -> dict[str, Any]:
        """Return the fields by name, without making the dataclass."""
        return self._kept | {field.name: field.read() for field in self._fields}

    def show(self, value: Any) -> None:
        """Show the settings of another object of the same class."""
        for field in self._fields:
            field.write(getattr(value, field.name))


def _field(kind: type, name: str, hint: Any, start: Any, depth: int) -> Field | None:
    """Return the control of one field: for one that is itself a dataclass, a choice of forms."""
    inner, optional = without_none(hint)
    if isinstance(inner, type) and inner.__module__ != "builtins":
        tip = tips.settings(kind).get(name, "")
        return _nested(name, inner, optional, start, depth, tip) if depth < DEPTH else None
    return field_for(kind, name, hint, start)


def _nested(name: str, base: type, optional: bool, start: Any, depth: int, tip: str) -> Field | None:
    """Make a choice of one of a base's subclasses, each with controls of its own."""
    found = [kind for kind in choices.offered(base) if choices.startable(kind)]
    if isinstance(start, base) and type(start) not in found:
        found.append(type(start))
    if not found:
        return None
    forms = [Form(kind, start if type(start) is kind else None, depth=depth + 1) for kind in found]
    empty = [NONE] if optional else []
    names = [*empty, *(kind.__name__ for kind in found)]
    at = len(empty) + found.index(type(start)) if type(start) in found else 0
    menu = widgets.Dropdown(options=names, index=at, layout=auto())
    pages = [*([widgets.HBox()] if optional else []), *(form.box for form in forms)]
    stack = Pages(menu, pages)

    def read() -> Any:
        chosen = menu.index - len(empty)
        return None if chosen < 0 else forms[chosen].value()

    def write(value: Any) -> None:
        chosen = -1 if value is None else found.index(type(value))
        menu.index = stack.selected_index = chosen + len(empty)  # here, too: without a browser nothing turns the page
        if value is not None:
            forms[chosen].show(value)

    box = widgets.HBox([labelled(name, menu, tip), stack], layout=widgets.Layout(flex_flow="row wrap", width="auto"))
    return Field(name, box, read, write)


def _leaves(box: Any) -> Iterable[Any]:
    for child in getattr(box, "children", ()):
        yield from _leaves(child)
    if not getattr(box, "children", ()):
        yield box
