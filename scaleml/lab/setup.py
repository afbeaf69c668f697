"""What to run, as controls: data, model, strategies, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, final

import ipywidgets as widgets

from scaleml import datasets
from scaleml.engine.compare import Trial
from scaleml.lab import kinds
from scaleml.lab.controller import Wish
from scaleml.lab.fields import labelled, narrow
from scaleml.lab.form import Form
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Optimizer
from scaleml.strategies import AllReduce, LocalSGD, Serial, Strategy

DATA = {
    "digits: 1,797 images, 64 columns": "digits",
    "breast cancer: 569 rows, 30 columns": "breast_cancer",
    "wine: 178 rows, 13 columns": "wine",
    "diabetes: 442 rows, 10 columns (regression)": "diabetes",
    "generated: 60,000 rows, 200 columns": "generated:60000x200",
}
CHOSEN = (Serial(), AllReduce(), LocalSGD(8))
"""What is ticked at first."""


@lru_cache(maxsize=2)
def _load(name: str) -> datasets.Dataset:
    return datasets.load(name)


@final
class StrategyRow:
    """One strategy: whether to run it, its settings, and a learning rate of its own."""

    def __init__(self, kind: type[Strategy], start: Trial | None) -> None:
        self.kind = kind
        self.tick = widgets.Checkbox(
            value=start is not None, description=kind.__name__, indent=False, layout=widgets.Layout(width="150px")
        )
        self.form = Form(kind, None if start is None else start.strategy)
        own = None if start is None or start.optimizer is None else start.optimizer.learning_rate
        self.rate = widgets.Text(
            value="" if own is None else f"{own:g}", placeholder="as below", layout=narrow("76px")
        )
        self._start = start
        layout = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        self.box = widgets.HBox([self.tick, self.form.box, labelled("own learning rate", self.rate)], layout=layout)

    def trial(self, optimizer: Optimizer) -> Trial:
        """Return what the controls say; raises ValueError for a value that breaks its rule."""
        strategy = self.form.value()
        trial = Trial(strategy) if self._start is None else replace(self._start, strategy=strategy, optimizer=None)
        text = self.rate.value.strip()
        if not text:
            return trial
        try:
            base = optimizer if self._start is None or self._start.optimizer is None else self._start.optimizer
            return replace(trial, optimizer=base.with_rate(float(text)))
        except ValueError as error:
            raise ValueError(f"{self.kind.__name__}, own learning rate {text!r}: must be a positive number") from error


@final
class Setup:
    """The controls of what to run.

    Parameters
    ----------
    model, X, y
        What the user gave; controls stand for what is None.
    strategies : sequence of Strategy or Trial, or None
        What is ticked.
    common : dict
        The first values of ``workers``, ``batch_size``, ``epochs``, ``target`` and ``optimizer``.
    fixed : dict
        More settings of ``compare``, which have no controls.
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        y: Any,
        strategies: Sequence[Any] | None,
        common: dict[str, Any],
        fixed: dict[str, Any],
    ) -> None:
        self._given = (model, X, y)
        self._fixed = fixed
        self._optimizer: Optimizer = common["optimizer"]
        self.rows = _rows(strategies)
        self.data = widgets.Dropdown(options=DATA, layout=widgets.Layout(width="290px"))
        self.model = widgets.Dropdown(options=["MLP", "linear model"], layout=narrow("120px"))
        self.hidden = widgets.Text(value="256, 128", placeholder="none", layout=narrow("110px"))
        self.workers = widgets.BoundedIntText(value=common["workers"], min=1, max=4096, layout=narrow("64px"))
        self.batch = widgets.BoundedIntText(value=common["batch_size"], min=1, max=2**31 - 1, layout=narrow())
        self.epochs = widgets.BoundedIntText(value=common["epochs"], min=1, max=10**6, layout=narrow())
        target = common["target"]
        self.target = widgets.Text(value="" if target is None else f"{target:g}", placeholder="none", layout=narrow())
        self.optimizer = widgets.Dropdown(options=self._optimizers(), layout=narrow("auto"))
        self.rate = widgets.FloatText(value=self._optimizer.learning_rate, layout=narrow())
        self.box = self._arranged()

    @property
    def controls(self) -> list[Any]:
        """All that is switched off while something runs."""
        rows = [part for row in self.rows for part in (row.tick, row.rate, *row.form.controls)]
        common = [self.data, self.model, self.hidden, self.workers, self.batch, self.epochs, self.target, self.optimizer, self.rate]
        return [*rows, *common]

    def wish(self) -> Wish:
        """Return what the controls say; raises ValueError or TypeError, with the reason, for what breaks a rule."""
        optimizer = self.optimizer.value.with_rate(self.rate.value)
        if not self.rate.value > 0:
            raise ValueError(f"learning rate {self.rate.value:g}: must be a positive number")
        trials = tuple(row.trial(optimizer) for row in self.rows if row.tick.value)
        if not trials:
            raise ValueError("No strategy is ticked: choose at least one.")
        settings = {
            **self._fixed,
            "optimizer": optimizer,
            "workers": self.workers.value,
            "batch_size": self.batch.value,
            "epochs": self.epochs.value,
            "target": _target(self.target.value.strip()),
        }
        return Wish(self._loader(), trials, settings)

    def subject(self) -> tuple[Any, ...]:
        """Return what makes runs comparable: those of another model or data are not drawn over each other."""
        return (self.data.value, self.model.value, self.hidden.value)

    def _loader(self) -> Callable[[], tuple[Any, Any, Any]]:
        model, X, y = self._given
        hidden = _widths(self.hidden.value) if self.model.value == "MLP" else None
        name = self.data.value

        def load() -> tuple[Any, Any, Any]:
            if X is not None:
                task = datasets.task_of(y) if model is None else ""
                return model or _model(hidden, task), X, y
            found = _load(name)
            return model or _model(hidden, found.task), found.X, found.y

        return load

    def _optimizers(self) -> list[tuple[str, Optimizer]]:
        own = self._optimizer
        others = [kind() for kind in kinds.offered(Optimizer) if kinds.startable(kind) and type(own) is not kind]
        return [(type(optimizer).__name__, optimizer) for optimizer in (own, *others)]

    def _arranged(self) -> widgets.Widget:
        model, X, _ = self._given
        wrap = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        subject = [labelled("data", self.data)] if X is None else []
        subject += [labelled("model", self.model), labelled("hidden layers", self.hidden)] if model is None else []
        common = [
            labelled("workers", self.workers),
            labelled("batch", self.batch),
            labelled("optimizer", self.optimizer),
            labelled("learning rate", self.rate),
            labelled("epochs", self.epochs),
            labelled("target loss", self.target),
        ]
        parts = [widgets.HBox(subject, layout=wrap)] if subject else []
        return widgets.VBox([*parts, *(row.box for row in self.rows), widgets.HBox(common, layout=wrap)])


def _rows(given: Sequence[Any] | None) -> list[StrategyRow]:
    """One row for each strategy that was given, ticked, then one for each other that the package exports."""
    trials = [part if isinstance(part, Trial) else Trial(part) for part in (CHOSEN if given is None else given)]
    kinds_given = {type(trial.strategy) for trial in trials}
    others = [kind for kind in kinds.offered(Strategy) if kind not in kinds_given]
    return [*(StrategyRow(type(trial.strategy), trial) for trial in trials), *(StrategyRow(kind, None) for kind in others)]


def _target(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"target loss {text!r}: must be a number, or empty for none") from None


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"hidden layers {text!r}: must be integers such as 256, 128; empty for none") from None


def _model(hidden: tuple[int, ...] | None, task: str) -> Any:
    loss: Any = "log_loss" if task == "classification" else "squared_error"
    return LinearModel(loss=loss) if hidden is None else MLP(hidden, loss=loss)


DEFAULT_OPTIMIZER = SGD(0.1)
