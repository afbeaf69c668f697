"""Hints: what to pass instead of what was passed for a model, a strategy, an optimizer or a setting, for who comes from other packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Final

from scaleml import optim
from scaleml.checks import guess
from scaleml.optim import Optimizer

_LONG: Final = 80
"""A repr of more characters is cut."""
_FOREIGN: Final = {"torch": "PyTorch's", "keras": "Keras'", "tensorflow": "TensorFlow's", "optax": "Optax's"}
_RATE: Final = "the learning rate belongs to the optimizer: pass optimizer=scaleml.SGD(0.1)"
_OF_OPTIMIZER: Final = "it belongs to the optimizer: pass optimizer=scaleml.SGD(0.1, {}=...)"
_ELSEWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("lr", "learning_rate", "eta0", "learning_rate_init"), _RATE),
    **{name: _OF_OPTIMIZER.format(name) for name in ("momentum", "weight_decay", "schedule", "clip_norm")},
    **dict.fromkeys(
        ("loss", "loss_fn", "criterion"),
        "the loss belongs to the model: LinearModel(loss='log_loss'), MLP((64,), loss='squared_error'), "
        "TorchModel(module, loss='cross_entropy')",
    ),
    **dict.fromkeys(
        ("transform", "dtype", "compute", "augment", "class_weight", "hidden"),
        "it belongs to the model: TorchModel(module, loss, transform=...), LinearModel(class_weight='balanced'), MLP((64,))",
    ),
    **dict.fromkeys(
        ("compression", "topology", "overlap", "period", "outer", "consistency", "staleness", "servers"),
        "it belongs to a strategy: AllReduce(compression=...), LocalSGD(period=8), ParameterServer('ssp', staleness=2)",
    ),
    **dict.fromkeys(
        ("strategies", "target", "repeats", "tune", "budget", "all_cores", "on_plan", "on_run"),
        "it belongs to scaleml.compare(model, X, y, [Serial(), AllReduce()], ...), which runs several strategies",
    ),
    "shards": "it belongs to scaleml.train and scaleml.start; a comparison has a shard a rank",
}
"""What is set elsewhere, and where."""
_SAME: Final[Mapping[str, str]] = {
    **dict.fromkeys(("n_epochs", "num_epochs", "max_iter", "max_epochs"), "epochs"),
    **dict.fromkeys(("n_jobs", "n_workers", "num_workers", "nproc_per_node"), "workers"),
    **dict.fromkeys(("random_state", "random_seed"), "seed"),
    **dict.fromkeys(("validation_data", "validation_split", "validation_fraction", "test_size"), "validation"),
    **dict.fromkeys(("metric", "metrics"), "scoring"),
    **dict.fromkeys(("lr", "eta0", "learning_rate_init"), "learning_rate"),
    **dict.fromkeys(("verbose", "progress_bar"), "progress"),
    **dict.fromkeys(("gpu", "use_gpu"), "device"),
    **dict.fromkeys(("rounds", "n_repeats"), "repeats"),
    **dict.fromkeys(
        ("checkpoint_dir", "checkpoint_path", "checkpoints", "ckpt_path", "save_dir", "default_root_dir"), "checkpoint"
    ),
    "strategy": "strategies",
}
"""What is called otherwise here."""


def of_setting(name: str, known: Sequence[str]) -> str:
    """Return where something is set that is no setting, or which it is like, of the ``known`` ones; empty for what nobody knows.

    Examples
    --------
    >>> of_setting("lr", ["epochs"])
    ' the learning rate belongs to the optimizer: pass optimizer=scaleml.SGD(0.1).'
    >>> of_setting("max_iter", ["epochs"]), of_setting("epoch", ["epochs"])
    (" Did you mean 'epochs'?", " Did you mean 'epochs'?")
    """
    same = _SAME.get(name)
    if same in known:
        return f" Did you mean {same!r}?"
    return f" {_ELSEWHERE[name]}." if name in _ELSEWHERE else guess(name, known)


def of_optimizer(value: object) -> str:
    """Return which optimizers there are and, by its name, which one was meant.

    Examples
    --------
    >>> of_optimizer("adamw")
    'must be one of scaleml.optim, which has SGD, AdaGrad, Adam, AdamW, Averaged, LBFGS: pass \
optimizer=scaleml.optim.AdamW(0.001)'
    """
    kinds = {name: getattr(optim, name) for name in optim.__all__ if _is_optimizer(getattr(optim, name))}
    known = sorted(kinds, key=lambda name: (name != "SGD", name.lower()))
    kind: Any = value if isinstance(value, type) else type(value)
    own = value if isinstance(value, str) else kind.__name__
    meant = next((name for name in known if name.lower() == own.lower().replace("_", "")), "")
    who = _FOREIGN.get(kind.__module__.split(".")[0])
    rule = f"{f'{who} optimizers are not taken: it ' if who else ''}must be one of scaleml.optim, which has {', '.join(known)}: pass"
    if not meant or meant == "Averaged":
        return f"{rule} optimizer=scaleml.optim.SGD(0.1), say"
    given = getattr(value, "defaults", None)
    rate = given.get("lr") if isinstance(given, dict) else None
    start = rate if isinstance(rate, Real) else kinds[meant]().learning_rate
    return f"{rule} optimizer=scaleml.optim.{meant}({start})"


def of_class(value: object) -> str:
    """Return how to make an object of `value` if it is a class, else nothing."""
    return f"; {value.__name__} is a class: call it, {value.__name__}()" if isinstance(value, type) else ""


def shortened(value: object) -> str:
    """Return a value's repr, the beginning of a long one, and the class alone of what takes several lines.

    Examples
    --------
    >>> shortened("adam"), shortened(list(range(100)))
    ("'adam'", '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, ...')
    """
    line = repr(value)
    if "\n" in line:
        return f"<{type(value).__module__}.{type(value).__qualname__}>"
    return line if len(line) <= _LONG else f"{line[: line.rfind(' ', 0, _LONG + 10)]} ..."


def _is_optimizer(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
