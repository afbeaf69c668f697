"""MLP: multi-layer perceptrons of any depth."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from scaleml.checks import check_integer, check_number, check_option
from scaleml.models.base import DTYPES, Model, Signature, check_class_weight, check_task
from scaleml.models.blocks import ACTIVATIONS, Block, Dense, Score
from scaleml.models.loss_names import make_loss
from scaleml.models.network import Network

__all__ = ["MLP"]


@final
@dataclass(frozen=True, repr=False)
class MLP(Model):
    """A multi-layer perceptron, for classes (logistic or softmax outputs), for several labels a row, or for numbers.

    The objective is ``mean of the loss + alpha * |weights|_2^2 / 2``; biases are not penalised.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, or int
        Units of each hidden layer; ``()`` for none.
    activation : {"relu", "tanh", "logistic", "identity"}
        Of the hidden layers.
    loss : {"log_loss", "squared_error", "binary_log_loss"}
        The first for classes, the second, ``(score - y)^2 / 2`` summed over the targets, for numbers; the third for targets that
        are each 0 or 1.
    alpha : float
        Strength of the L2 penalty, at least 0. scikit-learn's MLP divides its ``alpha`` by the number of rows.
    dtype : {"float32", "float64"}
        Of the parameters and of all arithmetic.
    class_weight : {"balanced"}, dict or None
        What the rows of each class weigh in training, as in scikit-learn's linear models: ``"balanced"`` weighs a class by
        ``rows / (classes * its rows)``; a dict names labels, others weigh 1. Held-out rows weigh what they did.

    Raises
    ------
    ValueError
        A value breaks its rule.

    Notes
    -----
    The names are those of scikit-learn's ``MLPClassifier`` and ``MLPRegressor``, and so is the start: Glorot's uniform
    (Glorot and Bengio, 2010), the same numbers as there for the same seed. The flat vector holds, layer after layer,
    the weights of shape (inputs, outputs) row by row, then the biases.

    Examples
    --------
    >>> net = MLP((16, 8)).build(Signature(4, n_outputs=3, task="multiclass"))
    >>> net.size
    243
    >>> [(block.start, block.stop) for block in net.blocks]
    [(0, 80), (80, 216), (216, 243)]
    """

    hidden_layer_sizes: tuple[int, ...] = (100,)
    activation: Literal["relu", "tanh", "logistic", "identity"] = "relu"
    loss: Literal["log_loss", "squared_error", "binary_log_loss"] = "log_loss"
    alpha: float = 1e-4
    dtype: str = "float32"
    class_weight: Literal["balanced"] | Mapping[Any, float] | None = None

    def __post_init__(self) -> None:
        sizes: object = self.hidden_layer_sizes
        if isinstance(sizes, numbers.Integral):
            sizes = (sizes,)
        if isinstance(sizes, str) or not isinstance(sizes, Sequence):
            raise ValueError(
                f"hidden_layer_sizes={sizes!r}: must be integers, one a hidden layer; use a tuple such as (100, 50)."
            )
        checked = tuple(check_integer("hidden_layer_sizes", size, 1) for size in sizes)
        object.__setattr__(self, "hidden_layer_sizes", checked)
        check_option("activation", self.activation, ACTIVATIONS)
        check_option("loss", self.loss, ("log_loss", "squared_error", "binary_log_loss"))
        object.__setattr__(self, "alpha", check_number("alpha", self.alpha, 0))
        check_option("dtype", self.dtype, DTYPES)
        check_class_weight(self.class_weight)
        if self.class_weight is not None and not self.is_classifier:
            raise ValueError(
                f"class_weight={self.class_weight!r} with loss={self.loss!r}, which is not for classes: weigh rows with sample_weight"
            )

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self.loss == "log_loss"

    def build(self, signature: Signature) -> Network:
        """Return the network for data of this signature; see `Model.build`."""
        check_task(self.loss, self.is_classifier, signature)
        blocks: list[Block] = []
        start, width = 0, signature.n_features
        for index, size in enumerate(self.hidden_layer_sizes):
            blocks.append(Dense(index, start, width, size, self.activation))
            start, width = blocks[-1].stop, size
        index = len(blocks)
        if signature.n_outputs == 1:
            blocks.append(Score(index, start, width))
        else:
            blocks.append(Dense(index, start, width, signature.n_outputs, "identity"))
        loss = make_loss(self.loss, signature.task)
        factor = 2.0 if self.activation == "logistic" else 6.0
        return Network(tuple(blocks), loss, signature, self.dtype, 0.0, self.alpha, init_factor=factor)
