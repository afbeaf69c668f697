"""Trial: a strategy with settings of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

from scaleml.api.named_settings import named_settings
from scaleml.cluster.placement import Workers
from scaleml.optim import SGD, Optimizer
from scaleml.representation import call_of
from scaleml.strategies import Strategy


@final
@dataclass(frozen=True, repr=False)
class Trial:
    """A strategy with settings of its own, instead of those that a comparison gives to all.

    Parameters
    ----------
    strategy : Strategy
        What to try.
    optimizer : Optimizer, optional
        Instead of the comparison's; taken as it is, whatever the rows of an update.
    batch_size, epochs, workers : optional
        Instead of the comparison's.

    Examples
    --------
    >>> from scaleml import LocalSGD, SGD, Trial
    >>> Trial(LocalSGD(8), optimizer=SGD(0.2)).label
    'LocalSGD(period=8), SGD(0.2)'
    """

    strategy: Strategy
    optimizer: Optimizer | None = None
    batch_size: int | None = None
    epochs: int | None = None
    workers: Workers = None

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Strategy):
            raise TypeError(
                f"{self.strategy!r} is no strategy: pass objects such as Serial(), AllReduce() or LocalSGD(8), or Trial(strategy, ...)"
            )

    def __repr__(self) -> str:
        """Return the call that makes it: the strategy, and the settings that are its own."""
        return call_of(self)

    @property
    def label(self) -> str:
        """How the comparison calls it."""
        own = [
            short(getattr(self, field.name), field.name)
            for field in fields(self)[1:]
            if getattr(self, field.name) is not None
        ]
        return ", ".join([repr(self.strategy), *own])


Trial.__init__ = named_settings()(Trial.__init__)  # type: ignore[method-assign]  # which dataclass has made


def trials_of(strategies: Sequence[Strategy | Trial]) -> list[Trial]:
    """Return the strategies as trials, checked.

    Raises
    ------
    ValueError, TypeError
        For an empty list, or what is none of strategies.
    """
    if isinstance(strategies, Strategy | Trial | str) or not isinstance(strategies, Sequence):
        raise TypeError(f"strategies={strategies!r}: must be a list such as [Serial(), AllReduce()]")
    if not strategies:
        raise ValueError("strategies=[]: at least one is needed, such as [Serial(), AllReduce()]")
    return [strategy if isinstance(strategy, Trial) else Trial(strategy) for strategy in strategies]


def short(value: object, name: str = "") -> str:
    """Return how a label says a setting; of an optimizer its rate alone where nothing else is chosen."""
    if isinstance(value, SGD) and value == SGD(value.learning_rate):
        return f"SGD({value.learning_rate:g})"
    return repr(value) if isinstance(value, Optimizer) else f"{name}={value!r}"
