"""Setup controls: what to run. Data, model, strategies, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, final

import ipywidgets as widgets
import numpy as np

from scaleml import datasets
from scaleml.api.trial import Trial
from scaleml.api.validation import check_workers
from scaleml.datasets.dataset import task_of
from scaleml.lab import choices
from scaleml.lab.controller import Wish
from scaleml.lab.fields import above, narrow
from scaleml.lab.strategy_rows import rows, table
from scaleml.models import MLP, LinearModel, Model
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
        model: Model | None,
        X: Any,
        y: Any,
        strategies: Sequence[Strategy | Trial] | None,
        common: dict[str, Any],
        fixed: dict[str, Any],
    ) -> None:
        self._given = (model, X, y)
        self._fixed = fixed
        self._optimizer: Optimizer = common["optimizer"]
        self.rows = rows(CHOSEN if strategies is None else strategies)
        self.data = widgets.Dropdown(options=DATA, layout=narrow("auto"))
        self.model = widgets.Dropdown(options=["MLP", "linear model"], layout=narrow("120px"))
        self.hidden = widgets.Text(value="512, 512", placeholder="none", layout=narrow("110px"))
        self.workers = _workers(common["workers"])
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
        common = [
            self.data,
            self.model,
            self.hidden,
            self.workers,
            self.batch,
            self.epochs,
            self.target,
            self.optimizer,
            self.rate,
        ]
        return [*rows, *common]

    def wish(self) -> Wish:
        """Return what the controls say; raises ValueError or TypeError, with the reason, for what breaks a rule."""
        if not 0 < self.rate.value < float("inf"):
            raise ValueError(f"learning rate {self.rate.value:g}: must be a positive number")
        optimizer = self.optimizer.value.with_rate(self.rate.value)
        trials = tuple(row.trial(optimizer) for row in self.rows if row.tick.value)
        if not trials:
            raise ValueError("No strategy is ticked: choose at least one.")
        settings = {
            **self._fixed,
            "optimizer": optimizer,
            "workers": _chosen(self.workers.value),
            "batch_size": self.batch.value,
            "epochs": self.epochs.value,
            "target": _target(self.target.value.strip()),
        }
        return Wish(self._loader(), trials, settings)

    def subject(self) -> tuple[Any, ...]:
        """Return what makes runs comparable: those of another model or data are not drawn over each other."""
        return (self.data.value, self.model.value, self.hidden.value)

    def _loader(self) -> Callable[[], tuple[Model, Any, Any]]:
        model, X, y = self._given
        hidden = _widths(self.hidden.value) if self.model.value == "MLP" else None
        name = self.data.value

        def load() -> tuple[Model, Any, Any]:
            if X is not None:
                task = task_of(np.asarray(y)) if model is None else ""
                return model or _model(hidden, task), X, y
            found = _load(name)
            return model or _model(hidden, found.task), found.X, found.y

        return load

    def _optimizers(self) -> list[tuple[str, Optimizer]]:
        own = self._optimizer
        others = [kind() for kind in choices.offered(Optimizer) if choices.startable(kind) and type(own) is not kind]
        return [(type(optimizer).__name__, optimizer) for optimizer in (own, *others)]

    def _arranged(self) -> widgets.Widget:
        model, X, _ = self._given
        subject = [above("data", self.data)] if X is None else []
        subject += [above("model", self.model), above("hidden layers", self.hidden)] if model is None else []
        common = [
            above("workers", self.workers),
            above("batch (rows)", self.batch),
            above("optimizer", self.optimizer),
            above("learning rate", self.rate),
            above("epochs", self.epochs),
            above("target loss", self.target),
        ]
        wrap = widgets.Layout(flex_flow="row wrap", width="100%")
        return widgets.VBox([widgets.HBox([*subject, *common], layout=wrap), table(self.rows)])


def _target(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"target loss {text!r}: must be a number, or empty for none") from None


def _workers(given: Any) -> Any:
    """Make the control of the workers: of their number, or, where those were named, of their addresses."""
    if isinstance(given, int):
        return widgets.BoundedIntText(value=given, min=1, max=4096, layout=narrow("64px"))
    check_workers(given)
    return widgets.Text(value=", ".join(given), layout=narrow("320px"))


def _chosen(workers: int | str) -> int | tuple[str, ...]:
    if isinstance(workers, int):
        return workers
    addresses = tuple(workers.replace(",", " ").split())
    check_workers(addresses)
    return addresses


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"hidden layers {text!r}: must be integers such as 256, 128; empty for none") from None


def _model(hidden: tuple[int, ...] | None, task: str) -> Model:
    loss: Any = "log_loss" if task == "classification" else "squared_error"
    return LinearModel(loss=loss) if hidden is None else MLP(hidden, loss=loss)


DEFAULT_OPTIMIZER = SGD(0.1)
