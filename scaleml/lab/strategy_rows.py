"""Strategy rows: the strategies to compare, one row each, with its settings and a learning rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import ipywidgets as widgets

from scaleml.api.trial import Trial
from scaleml.lab import choices
from scaleml.lab.fields import narrow
from scaleml.lab.form import Form
from scaleml.optim import Optimizer
from scaleml.strategies import Strategy


@final
class StrategyRow:
    """One strategy: whether to run it, its settings, and a learning rate of its own.

    Parameters
    ----------
    kind : type
        The strategy's class.
    start : Trial or None
        What is ticked at first; None: nothing.
    """

    def __init__(self, kind: type[Strategy], start: Trial | None) -> None:
        self.kind = kind
        self.tick = widgets.Checkbox(
            value=start is not None, description=kind.__name__, indent=False, layout=widgets.Layout(width="auto")
        )
        self.form = Form(kind, None if start is None else start.strategy)
        own = None if start is None or start.optimizer is None else start.optimizer.learning_rate
        self.rate = widgets.Text(value="" if own is None else f"{own:g}", placeholder="as above", layout=narrow("84px"))
        self._start = start

    def trial(self, optimizer: Optimizer) -> Trial:
        """Return what the controls say; raises ValueError for a value that breaks its rule."""
        strategy = self.form.value()
        trial = Trial(strategy) if self._start is None else replace(self._start, strategy=strategy, optimizer=None)
        text = self.rate.value.strip()
        if not text:
            return trial
        base = optimizer if self._start is None or self._start.optimizer is None else self._start.optimizer
        try:
            return replace(trial, optimizer=base.with_rate(float(text)))
        except ValueError as error:
            raise ValueError(f"{self.kind.__name__}, own learning rate {text!r}: must be a positive number") from error


def rows(given: Sequence[Strategy | Trial]) -> list[StrategyRow]:
    """Return one row for each strategy that is given, ticked, then one for each other that the package exports."""
    trials = [part if isinstance(part, Trial) else Trial(part) for part in given]
    kinds_given = {type(trial.strategy) for trial in trials}
    others = [kind for kind in choices.offered(Strategy) if kind not in kinds_given]
    return [
        *(StrategyRow(type(trial.strategy), trial) for trial in trials),
        *(StrategyRow(kind, None) for kind in others),
    ]


def table(shown: Sequence[StrategyRow]) -> widgets.Widget:
    """Return the rows under their headings."""
    heads = [widgets.HTML(f'<span class="scaleml-head">{text}</span>') for text in ("strategy", "settings", "own rate")]
    heads[1].add_class("scaleml-form")
    for row in shown:
        row.form.box.add_class("scaleml-form")
    cells = [cell for row in shown for cell in (row.tick, row.form.box, row.rate)]
    grid = widgets.GridBox([*heads, *cells])
    grid.add_class("scaleml-strategies")  # the style sheet arranges it, and hides the settings of what is not ticked
    return grid
