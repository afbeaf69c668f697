"""Settings of a run: how to train, everything but the data and the cluster, with the checks of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from scaleml.api import hints
from scaleml.api.scoring import check_scoring
from scaleml.arrays import Array
from scaleml.callbacks.base import Callback
from scaleml.checkpoint import Checkpoint
from scaleml.checks import check_integer, check_number, check_option
from scaleml.devices import CHOICES
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import Optimizer, RowSteps
from scaleml.runtime.held_out_score import Scorer
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.saving import Origin
from scaleml.runtime.serialization import describe
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import Strategy
from scaleml.telemetry.place import Place

if TYPE_CHECKING:
    from distributed import Client

    from scaleml.cluster.placement import Workers

_KINDS: Final[dict[str, tuple[type, str]]] = {
    "model": (
        Model,
        "a model object such as LinearModel() or MLP(), or an estimator of scaleml.linear_model or scaleml.neural_network",
    ),
    "strategy": (Strategy, "a strategy object such as AllReduce() or LocalSGD(8)"),
    "optimizer": (Optimizer, "an optimizer object such as SGD(0.1) or Adam()"),
}


ON_WORKER_LOST: Final = ("replace", "shrink", "raise")
"""What may happen when a worker is lost."""


ON_NONFINITE: Final = ("raise", "skip")
"""What may happen when a loss or gradient is not finite."""


class Fitted(Protocol):
    """Makes of a run's end what scikit-learn calls fitted."""

    def __call__(self, params: Array, outcome: Outcome) -> Any:
        """Return a fitted estimator, or pipeline, with these parameters (P,)."""


class MoreSettings(TypedDict, total=False):
    """Settings of a run that have nothing to do with what is trained."""

    shards: int | None
    faults: Sequence[Fault]
    label: str
    evaluations_an_epoch: int
    scoring: str | Scorer | None
    microbatch: int | None
    device: str
    on_worker_lost: str
    on_nonfinite: str
    checkpoint: Checkpoint | None
    origin: Origin | None
    given: Mapping[str, Any]


class TrainSettings(TypedDict, total=False):
    """The settings of ``train`` and ``start``."""

    strategy: Strategy | None
    optimizer: Optimizer | None
    epochs: int | None
    batch_size: int | None
    workers: Workers
    client: Client | None
    validation: object
    sample_weight: object
    shards: int | None
    seed: int | None
    faults: Sequence[Fault] | None
    scoring: str | Scorer | None
    microbatch: int | None
    callbacks: Sequence[Callback]
    device: str
    on_worker_lost: str
    on_nonfinite: str
    detach: bool | str
    checkpoint: str | PathLike[str] | Checkpoint | None


@dataclass(frozen=True)
class Settings:
    """How to train, checked: everything but the data and the cluster.

    Parameters
    ----------
    model, strategy, optimizer, epochs, batch_size, shards, seed, faults
        As for ``train``.
    evaluations_an_epoch : int
        Of the held-out data.
    label : str
        How the run is called; by default its strategy's repr.
    stop : StopRule, optional
        When to end before the last epoch.
    begin : Start, optional
        Where to go on from.
    steps : callable, optional
        Given the rows of an update, what turns mean gradients into steps; see ``Plan.steps``.
    keep_end, snapshots, by_rows : bool
        See ``Plan``.
    place : Place, optional
        Where the run stands in a comparison.
    fitted : callable, optional
        What makes a fitted estimator of the run's end, where it was one that was passed.
    scoring, microbatch
        As for ``train``.
    device, on_worker_lost, on_nonfinite, checkpoint
        As for ``train``.
    origin : Origin, optional
        The checkpoint to begin from.
    given : mapping
        What the user has said of ``epochs``, ``batch_size`` and ``validation``, and whether of the optimizer, for whoever resumes.
    """

    model: Model
    strategy: Strategy
    optimizer: Optimizer
    epochs: int = 5
    batch_size: int = 256
    shards: int | None = None
    seed: int = 0
    evaluations_an_epoch: int = 1
    faults: Sequence[Fault] = ()
    label: str = ""
    stop: StopRule | None = None
    begin: TrainState | None = None
    steps: Callable[[int], RowSteps] | None = None
    keep_end: bool = False
    snapshots: bool = False
    by_rows: bool = False
    place: Place | None = None
    fitted: Fitted | None = None
    scoring: str | Scorer | None = None
    microbatch: int | None = None
    device: str = "auto"
    on_worker_lost: str = "replace"
    on_nonfinite: str = "raise"
    checkpoint: Checkpoint | None = None
    origin: Origin | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _KINDS:
            check_kind(name, getattr(self, name))
        if not isinstance(self.faults, list | tuple):
            raise TypeError(f"faults={self.faults!r}: must be a list such as [scaleml.faults.Slow(rank=1, factor=4)]")
        check_scoring(self.scoring)
        check_option("device", self.device, CHOICES)
        check_option("on_worker_lost", self.on_worker_lost, ON_WORKER_LOST)
        check_option("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        for name in ("epochs", "batch_size", "shards", "evaluations_an_epoch", "microbatch"):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value, 1, rule="a positive integer")
        rule = "an integer from 0 to 2**32 - 1; the same seed gives the same run"
        check_integer("seed", self.seed, 0, 2**32 - 1, rule=rule)

    @property
    def uses(self) -> tuple[tuple[Strategy, Optimizer], ...]:
        """What decides the memory of a rank, as ``TrainingData`` is told of it."""
        return ((self.strategy, self.optimizer),)


class Change(TypedDict, total=False):
    """What a run is told to change in mid-run, as the command that tells it carries it."""

    learning_rate: float
    batch_size: int
    strategy: dict[str, object]
    """As `describe` names it."""


def live_settings(learning_rate: float | None, batch_size: int | None, strategy: Strategy | None, rows: int) -> Change:
    """Return what a run on so many rows is told to change in mid-run, checked; ``strategy`` is one for its ranks as they stand."""
    change: Change = {}
    if learning_rate is not None:
        change["learning_rate"] = check_number(
            "learning_rate", learning_rate, 0, open_low=True, rule="a positive number"
        )
    if batch_size is not None:
        rule = "a positive integer, the rows of one step over all ranks"
        change["batch_size"] = min(check_integer("batch_size", batch_size, 1, rule=rule), rows)
    if strategy is not None:
        change["strategy"] = describe(strategy)
    return change


def check_kind(name: str, value: object) -> None:
    """Raise TypeError unless a model, strategy or optimizer is an object of that kind."""
    kind, wanted = _KINDS[name]
    kinds = [f"{one.__module__}.{one.__name__}" for one in type(value).__mro__]
    if name == "model" and any(
        one.startswith("keras.") for one in kinds
    ):  # with its PyTorch backend one of PyTorch's, too
        raise TypeError(
            f"{name} is of Keras, a {type(value).__name__}: pass a model and say what its outputs are for, such as "
            "scaleml.KerasModel(model, loss='sparse_categorical_crossentropy')"
        )
    if "torch.nn.modules.module.Module" in kinds:
        raise TypeError(
            f"{name} is a module of PyTorch, {type(value).__name__}: say what its outputs are for, such as "
            "scaleml.TorchModel(module, loss='cross_entropy')"
        )
    if not isinstance(value, kind):
        is_ours = isinstance(value, type) and issubclass(value, kind)
        rule = (
            hints.of_optimizer(value)
            if kind is Optimizer and not is_ours
            else f"must be {wanted}{hints.of_class(value)}"
        )
        raise TypeError(f"{name}={hints.shortened(value)}: {rule}")


def check_target(target: object) -> None:
    """Raise ValueError for a target that is no finite number."""
    if target is not None:
        check_number("target", target, rule="the held-out loss to be reached, a finite number, or None")
