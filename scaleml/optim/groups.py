"""Parameter groups by name: settings of an optimizer that hold for some parameters alone."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, final

from scaleml.checks import check_number, guess
from scaleml.representation import call_of

__all__ = ["Group"]

VECTORS: Final = "1d"
"""Stands for all parameters of one axis."""
_NAMED: Final = 12
"""So many names an error lists."""


@final
@dataclass(frozen=True, repr=False)
class Group:
    """A learning rate or a weight decay for the parameters of some names, as PyTorch's parameter groups.

    Parameters
    ----------
    names : str or tuple of str
        Patterns of names, where ``*`` stands for anything: ``"*bias"``, ``"encoder.*"``. PyTorch modules' names are those of
        ``named_parameters()``; a perceptron has ``hidden.0.weight``, ``hidden.0.bias``, ..., ``output.weight``, ``output.bias``, a linear
        model ``weight`` and ``bias``. ``"1d"`` stands for all that has one axis, however it is called: biases and the scales of norms.
        Each pattern must fit a parameter.
    learning_rate : float, optional
        At least 0, which freezes them. It keeps its ratio to the optimizer's own: with the schedule, and where that is changed in mid-run.
    weight_decay : float, optional
        At least 0.

    Raises
    ------
    ValueError
        A value breaks its rule.

    Notes
    -----
    Where several groups fit a name, each setting is that of the first one that gives it.

    Examples
    --------
    >>> from scaleml.optim import AdamW
    >>> AdamW(1e-3, groups=[Group("hidden.0.*", learning_rate=1e-4)], no_decay=("*bias", "*norm*")).groups
    (Group('hidden.0.*', learning_rate=0.0001),)
    """

    names: str | tuple[str, ...]
    learning_rate: float | None = None
    weight_decay: float | None = None

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return call_of(self)

    def __post_init__(self) -> None:
        names: Any = self.names
        if not check_patterns("names", names) or names == "":
            raise ValueError(f"names={names!r}: must be a pattern of names such as '*bias', or a tuple of such")
        if not isinstance(names, str):
            object.__setattr__(self, "names", tuple(names))
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_number(name, getattr(self, name), 0))
        if self.learning_rate is None and self.weight_decay is None:
            raise ValueError(f"Group({names!r}) sets nothing: give learning_rate, weight_decay, or both")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, also where it is one."""
        return (self.names,) if isinstance(self.names, str) else self.names

    def times(self, factor: float) -> Group:
        """Return the same with its learning rate, if it has one, times `factor`."""
        return self if self.learning_rate is None else replace(self, learning_rate=self.learning_rate * factor)


def check_patterns(name: str, patterns: object) -> tuple[str, ...]:
    """Return patterns as a tuple; raise ValueError unless they are texts."""
    if isinstance(patterns, str):
        return (patterns,)
    if not isinstance(patterns, list | tuple) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(f"{name}={patterns!r}: must be a pattern of names such as '*bias', or a tuple of such")
    return tuple(patterns)


def check_groups(groups: object) -> tuple[Group, ...]:
    """Return groups as a tuple; raise ValueError unless they are groups."""
    if isinstance(groups, Group):
        return (groups,)
    if not isinstance(groups, list | tuple) or not all(isinstance(group, Group) for group in groups):
        raise ValueError(f"groups={groups!r}: must be a list such as [Group('*bias', weight_decay=0.0)]")
    return tuple(groups)


def fits(pattern: str, name: str, vectors: Container[str]) -> bool:
    """Whether a pattern fits a parameter; `vectors` are the names of those of one axis."""
    return fnmatchcase(name, pattern) or (pattern == VECTORS and name in vectors)


def check_matched(patterns: Iterable[str], names: Sequence[str], vectors: Container[str]) -> None:
    """Raise ValueError for a pattern that fits none of a model's parameters, saying what there is."""
    for pattern in patterns:
        if not any(fits(pattern, name, vectors) for name in names):
            if not names:
                raise ValueError(
                    f"a parameter group of {pattern!r}, but this model's parameters have no names: leave groups and no_decay out, "
                    "or give the model named_parts (scaleml.models.flat_model.Named)"
                )
            shown = ", ".join(map(repr, names[:_NAMED]))
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise ValueError(
                f"a parameter group of {pattern!r}, but no parameter has such a name.{guess(pattern, names)} There are {shown}{more}"
            )


def settings_of(groups: Sequence[Group], name: str, vectors: Container[str]) -> tuple[float | None, float | None]:
    """Return the learning rate and the weight decay that groups give a parameter; None for the optimizer's own."""
    fitting = [group for group in groups if any(fits(pattern, name, vectors) for pattern in group.patterns)]
    rates = (group.learning_rate for group in fitting if group.learning_rate is not None)
    decays = (group.weight_decay for group in fitting if group.weight_decay is not None)
    return next(rates, None), next(decays, None)
