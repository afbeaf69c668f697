"""Controls for the settings of a dataclass, made from its fields: nothing here knows any strategy by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Any, final, get_type_hints

import ipywidgets as widgets

from scaleml.lab import kinds
from scaleml.lab.fields import field_for


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
        for field in kinds.settings(kind):
            value = kinds.default(field) if start is None else getattr(start, field.name)
            if value is MISSING and first is not None:
                value = first.get(field.name, MISSING)
            made = None if field.name in leave_out else field_for(kind, field.name, hints[field.name], value, depth)
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


def _leaves(box: Any) -> Iterable[Any]:
    for child in getattr(box, "children", ()):
        yield from _leaves(child)
    if not getattr(box, "children", ()):
        yield box
