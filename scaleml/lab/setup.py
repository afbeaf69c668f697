"""Setup controls: what to run. Data, model, strategies, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, final

import ipywidgets as widgets
import numpy as np

from scaleml import datasets
from scaleml.api.settings import check_kind
from scaleml.api.trial import Trial
from scaleml.api.validation import check_workers
from scaleml.cluster.embedded import embedded_size
from scaleml.data.map_dataset import is_dataset
from scaleml.datasets.dataset import task_of
from scaleml.escaping import escape
from scaleml.frameworks.residual_network import ResidualNetwork
from scaleml.frameworks.suited import has_torch, suited
from scaleml.frameworks.text_classifier import TextClassifier
from scaleml.lab import choices, entry
from scaleml.lab.fields import above, auto
from scaleml.lab.orders import Wish
from scaleml.lab.starting import DEFAULT_OPTIMIZER, OPTIMIZERS, OWN, SCHEDULES, scheduled
from scaleml.lab.strategy_rows import rows, table
from scaleml.models import MLP, LinearModel, Model
from scaleml.optim import Optimizer
from scaleml.strategies import AllReduce, LocalSGD, Serial, Strategy

DATA = {
    "digits: 1,797 images, 64 columns": "digits",
    "breast cancer: 569 rows, 30 columns": "breast_cancer",
    "wine: 178 rows, 13 columns": "wine",
    "diabetes: 442 rows, 10 columns (regression)": "diabetes",
    "generated: 60,000 rows, 200 columns": "generated:60000x200",
}
SHAPED = {
    "digit images: 1,797 of 8 x 8 pixels": ("digit_images", ResidualNetwork),
    "docstrings: 7,500 sentences": ("docstrings", TextClassifier),
}
"""What is offered where PyTorch is there: data in its own shape, and the model that is for it."""
CALLED = {ResidualNetwork: "residual network", TextClassifier: "text classifier"}
MODELS = ("MLP", "linear model")
TIPS = {
    "data": "What is learnt: data sets that come with the packages, or generated ones. Images and sentences need PyTorch.",
    "model": "What is trained: a multilayer perceptron, or a linear model (logistic or linear regression); of images a residual network, "
    "of sentences the mean of the words' embeddings and a perceptron.",
    "hidden layers": "Units of each hidden layer of the MLP, such as 256, 128; empty for none.",
    "workers": "How many Dask workers train, one rank a worker; or which, by their addresses.",
    "batch (rows)": "The global batch: rows of one update over all workers, so that their number does not change the mathematics.",
    "optimizer": "What turns a gradient into a step.",
    "learning rate": "How far a step goes, for every strategy that has no rate of its own.",
    "schedule": "How the learning rate goes with the run: a warm-up is a tenth of it, what follows ends with it.",
    "epochs": "Passes over the data.",
    "target loss": "The held-out loss that counts: a run ends where it is reached and held. Empty: the loss that all reached.",
    "rounds": "How often every strategy runs: from one round nothing is claimed. Empty: as many as fit the time, at least five short ones.",
    "tune": "Settings that every strategy tries first, the same for all, before the rounds. Empty: none.",
    "time (s)": "Seconds that all of it may take. Empty: a minute, stretched to five rounds where these are short.",
}
"""What the settings that all runs have in common mean."""
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
        The first values of ``workers``, ``batch_size``, ``epochs``, ``target`` and ``optimizer``; of the last None for one that suits the
        data.
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
        own = common["optimizer"]
        self._is_chosen, self._optimizer = own is not None, DEFAULT_OPTIMIZER if own is None else own
        check_kind("optimizer", self._optimizer)
        self.rows = rows(CHOSEN if strategies is None else strategies)
        shaped = {label: name for label, (name, _) in SHAPED.items()} if has_torch() else {}
        self.data = widgets.Dropdown(options=DATA | shaped, layout=auto())
        self.model = widgets.Dropdown(options=MODELS, layout=auto())
        self.data.observe(self._offer_models, "value")
        self.hidden = entry.Entry(entry.several("hidden layers"), "512, 512", width="medium", placeholder="none")
        self.workers = _workers(common["workers"])
        self.batch = entry.Entry(entry.whole("batch"), common["batch_size"])
        self.epochs = entry.Entry(entry.whole("epochs"), common["epochs"])
        target = entry.maybe(entry.real("target loss"))
        self.target = entry.Entry(target, entry.shown(common["target"]), placeholder="none")
        self.repeats = entry.Entry(
            entry.maybe(entry.whole("rounds")), entry.shown(common["repeats"]), placeholder="auto"
        )
        self.tune = entry.Entry(entry.maybe(entry.whole("tune")), entry.shown(common["tune"]), placeholder="none")
        budget = entry.maybe(entry.positive("time"))
        self.budget = entry.Entry(budget, entry.shown(common["budget"]), placeholder="auto")
        self.optimizer = widgets.Dropdown(options=self._optimizers(), layout=auto())
        self.rate = entry.Entry(entry.positive("learning rate"), entry.shown(self._optimizer.learning_rate))
        offered = list(SCHEDULES) if self._optimizer.schedule in SCHEDULES.values() else [OWN, *SCHEDULES]
        first = next((name for name in SCHEDULES if SCHEDULES[name] == self._optimizer.schedule), OWN)
        self.schedule = widgets.Dropdown(options=offered, value=first, layout=auto())
        self.summary = widgets.HTML()
        self.box = self._arranged()
        self.data.observe(self._suggest_optimizer, "value")

    def _offer_models(self, _: object = None) -> None:
        """Offer the models that the data is for."""
        own = tuple(CALLED[kind] for name, kind in SHAPED.values() if name == self.data.value) or MODELS
        if self.model.options != own:
            self.model.options = own

    def _suggest_optimizer(self, change: Any) -> None:
        """Start with the optimizer that is for the data, unless the user has passed or chosen one."""
        former = OPTIMIZERS.get(change["old"], DEFAULT_OPTIMIZER)
        said = type(self.optimizer.value), self.rate.value
        if not self._is_chosen and said == (type(former), entry.shown(former.learning_rate)):
            start = OPTIMIZERS.get(self.data.value, DEFAULT_OPTIMIZER)
            self.optimizer.value = next(one for _, one in self.optimizer.options if type(one) is type(start))
            self.rate.value = entry.shown(start.learning_rate)

    def when_typed(self, call: Callable[[object], None]) -> None:
        """Have this called when a text has changed."""
        for one in self._entries:
            one.observe(call, "value")

    @property
    def problem(self) -> str:
        """The first reason why something typed is refused; empty if nothing is."""
        return next((one.problem for one in self._entries if one.problem and self._is_asked(one)), "")

    def _is_asked(self, one: entry.Entry) -> bool:
        """Whether it matters what an entry says: hidden layers are the MLP's."""
        return one is not self.hidden or self.model.value == "MLP"

    @property
    def _entries(self) -> list[entry.Entry]:
        return [control for control in self.controls if isinstance(control, entry.Entry)]

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
            self.schedule,
            self.repeats,
            self.tune,
            self.budget,
        ]
        return [*rows, *common]

    def offer(self, on: bool) -> None:
        """Switch all of it on or off."""
        for control in self.controls:
            control.disabled = not on

    def wish(self) -> Wish:
        """Return what the controls say; raises ValueError or TypeError, with the reason, for what breaks a rule."""
        optimizer = self.optimizer.value.with_rate(self.rate.read())
        if self.schedule.value != OWN:
            optimizer = scheduled(optimizer, SCHEDULES[self.schedule.value])
        trials = tuple(row.trial(optimizer) for row in self.rows if row.tick.value)
        if not trials:
            raise ValueError("No strategy is ticked: choose at least one.")
        settings = {
            **self._fixed,
            "optimizer": optimizer,
            "workers": self.workers.read(),
            "batch_size": self.batch.read(),
            "epochs": self.epochs.read(),
            "target": self.target.read(),
            "repeats": self.repeats.read(),
            "tune": self.tune.read(),
            "budget": self.budget.read(),
        }
        self._sum_up(optimizer)
        return Wish(self._loader(), trials, settings, source=self.data.value if self._given[1] is None else None)

    def _sum_up(self, optimizer: Optimizer) -> None:
        """Say in a line what is chosen: for when the settings are folded."""
        model, X, _ = self._given
        hidden = f" ({self.hidden.value})" if self.model.value == "MLP" else ""
        facts = [
            *([str(self.data.label).partition(":")[0]] if X is None else []),
            f"{self.model.value}{hidden}" if model is None else repr(model),
            f"workers {self.workers.value}",
            f"batch {self.batch.value}",
            f"{type(optimizer).__name__} {self.rate.value}",
            *([self.schedule.value] if self.schedule.value != "constant" else []),
            f"{self.epochs.value} epochs",
            *([f"target loss {self.target.value}"] if self.target.value else []),
            *([f"{self.repeats.value} rounds"] if self.repeats.value else []),
            *([f"{self.tune.value} settings tried"] if self.tune.value else []),
        ]
        self.summary.value = f'<div class="scaleml-summary">{escape(" · ".join(facts))}</div>'

    def subject(self) -> tuple[Any, ...]:
        """Return what makes runs comparable: those of another model or data are not drawn over each other."""
        return (self.data.value, self.model.value, self.hidden.value)

    def _loader(self) -> Callable[[], tuple[Model, Any, Any]]:
        model, X, y = self._given
        hidden = self.hidden.read() if self.model.value == "MLP" else None
        name = self.data.value

        def load() -> tuple[Model, Any, Any]:
            if X is not None:
                task = task_of(np.asarray(y)) if model is None else ""
                return model or suited(X) or _model(hidden, task), X, y
            found = _load(name)
            return model or suited(found.X) or _model(hidden, found.task), found.X, found.y

        return load

    def _optimizers(self) -> list[tuple[str, Optimizer]]:
        own = self._optimizer
        others = [kind() for kind in choices.offered(Optimizer) if choices.startable(kind) and type(own) is not kind]
        return [(type(optimizer).__name__, optimizer) for optimizer in (own, *others)]

    def _arranged(self) -> widgets.Widget:
        model, X, _ = self._given
        subject = ["data"] if X is None else []
        if model is None:
            own = suited(X)
            if own is not None:
                self.model.options = (CALLED[type(own)],)
            subject += ["model"] if own is not None else ["model", "hidden layers"]
        fields = {
            "data": self.data,
            "model": self.model,
            "hidden layers": self.hidden,
            "workers": self.workers,
            "batch (rows)": self.batch,
            "optimizer": self.optimizer,
            "learning rate": self.rate,
            "schedule": self.schedule,
            "epochs": self.epochs,
            "target loss": self.target,
            "rounds": self.repeats,
            "tune": self.tune,
            "time (s)": self.budget,
        }
        shown = {name: above(name, fields[name], TIPS[name]) for name in (*subject, *list(fields)[3:])}
        hidden = shown.get("hidden layers")

        def hide(_: object = None) -> None:
            if hidden is not None:
                hidden.layout.display = None if self._is_asked(self.hidden) else "none"

        self.model.observe(hide, "value")
        hide()
        wrap = widgets.Layout(flex_flow="row wrap", width="100%")
        return widgets.VBox([widgets.HBox(list(shown.values()), layout=wrap), table(self.rows)])


def _workers(given: Any) -> entry.Entry:
    """Make the control of the workers: of their number, or, where those were named, of their addresses."""
    if isinstance(given, int):
        return entry.Entry(entry.whole("workers"), given)
    check_workers(given)
    return entry.Entry(_addresses, ", ".join(given), width="long")


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(text.replace(",", " ").split())
    check_workers(addresses)
    return addresses


def _model(hidden: tuple[int, ...] | None, task: str) -> Model:
    loss: Any = "log_loss" if task == "classification" else "squared_error"
    return LinearModel(loss=loss) if hidden is None else MLP(hidden, loss=loss)


def usual_workers(client: Any) -> int:
    """Return how many workers a lab offers at first: all of a client's, or those of the embedded cluster."""
    return max(2, embedded_size()) if client is None else max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def check_pair(X: Any, y: Any) -> None:
    """Raise ValueError for one of X and y without the other."""
    if (X is None) != (y is None) and not is_dataset(X):  # whose items have their targets
        given, missing = ("y", "X") if X is None else ("X", "y")
        raise ValueError(f"{given} was given without {missing}: give both, or neither")
