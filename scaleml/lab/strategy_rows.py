"""Strategy rows: the strategies to compare, one row each, with its settings and a learning rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import ipywidgets as widgets

from scaleml.api.trial import Trial
from scaleml.lab import choices, entry, tips
from scaleml.lab.fields import auto, labelled, silent
from scaleml.lab.form import Form
from scaleml.optim import Optimizer
from scaleml.strategies import Strategy

OWN_RATE = "A learning rate for this strategy alone: one rate for all is unfair to those that step on fewer rows."


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
        self.tick = widgets.Checkbox(value=start is not None, indent=False, layout=auto())
        self.form = Form(kind, None if start is None else start.strategy)
        own = None if start is None or start.optimizer is None else start.optimizer.learning_rate
        rate = f"{kind.__name__}, own learning rate"
        self.rate = entry.Entry(entry.maybe(entry.positive(rate)), entry.shown(own), placeholder="as above")
        self.cells = (
            labelled(kind.__name__, self.tick, tips.about(kind)),
            self.form.box,
            silent(rate, self.rate, OWN_RATE),
        )
        self.cells[0].add_class("scaleml-tick")
        self._start = start

    def trial(self, optimizer: Optimizer) -> Trial:
        """Return what the controls say; raises ValueError for a value that breaks its rule."""
        strategy = self.form.value()
        trial = Trial(strategy) if self._start is None else replace(self._start, strategy=strategy, optimizer=None)
        rate = self.rate.read()
        if rate is None:
            return trial
        base = optimizer if self._start is None or self._start.optimizer is None else self._start.optimizer
        return replace(trial, optimizer=base.with_rate(rate))


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
    cells = [cell for row in shown for cell in row.cells]
    grid = widgets.GridBox([*heads, *cells])
    grid.add_class("scaleml-strategies")  # the style sheet arranges it, and hides the settings of what is not ticked
    return grid
