"""Linear models: one block, with scikit-learn's losses and penalties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

from scaleml.checks import check_number, check_option
from scaleml.models.base import DTYPES, ClassWeight, Model, Signature, check_class_weight, check_task
from scaleml.models.blocks import Block, Dense, Score
from scaleml.models.loss_names import make_loss
from scaleml.models.losses import CLASSES, LOSSES, OwnClass, Softmax
from scaleml.models.network import Network

__all__ = ["LinearModel"]


@final
@dataclass(frozen=True, repr=False)
class LinearModel(Model):
    """A linear model: ``scores = X @ coef + intercept``.

    The objective is ``mean of the loss + alpha * (l1_ratio * |coef|_1 + (1 - l1_ratio) * |coef|_2^2 / 2)``, with
    ``l1_ratio`` 0 for ``"l2"`` and 1 for ``"l1"``; the intercept is not penalised. The L1 term enters by its
    subgradient, so coefficients become small, not exactly zero.

    Parameters
    ----------
    loss : str
        For classes: ``"log_loss"``, ``"hinge"``, ``"squared_hinge"``, ``"modified_huber"``, ``"perceptron"``. With more
        than two classes, ``"log_loss"`` is softmax (see `multiclass`) and the others one class against the rest. For
        numbers: ``"squared_error"``, which is ``(score - y)^2 / 2``, ``"huber"``, ``"epsilon_insensitive"``,
        ``"squared_epsilon_insensitive"``.
    penalty : {"l2", "l1", "elasticnet", None}
    alpha : float
        Strength of the penalty, at least 0.
    l1_ratio : float
        Share of L1 in ``"elasticnet"``, 0 to 1.
    fit_intercept : bool
    epsilon : float
        Where ``"huber"`` turns linear, and the half width of the dead zone of ``"epsilon_insensitive"``; in y's units.
    multiclass : {"softmax", "ovr"}
        Of ``"log_loss"`` with three classes and more: one distribution over all, or one logistic loss a class, against
        the rest, as scikit-learn's ``SGDClassifier`` has it.
    class_weight : {"balanced"}, dict or None
        What the rows of each class weigh in training, as in scikit-learn: ``"balanced"`` weighs a class by
        ``rows / (classes * its rows)``; a dict names labels, others weigh 1. One against the rest a class weighs in its own
        problem, as in ``SGDClassifier``; a tuple is such weights, one for each class. Held-out rows weigh what they did; one against
        the rest, their loss is the weighted one.
    dtype : {"float32", "float64"}
        Of the parameters and of all arithmetic.

    Raises
    ------
    ValueError
        A value breaks its rule.

    Notes
    -----
    The names are those of scikit-learn's ``SGDClassifier`` and ``SGDRegressor``. The flat vector holds the
    coefficients, of shape (n_features,) or (n_features, n_outputs) row by row, then the intercepts.

    Examples
    --------
    >>> import numpy as np
    >>> net = LinearModel("squared_error", penalty=None).build(Signature(2, task="regression"))
    >>> net.size
    3
    >>> net.predict(np.array([1, 2, 3], "f4"), np.array([[1, 1], [0, 2]], "f4")).tolist()
    [6.0, 7.0]
    """

    loss: Literal[
        "log_loss",
        "hinge",
        "squared_hinge",
        "modified_huber",
        "perceptron",
        "squared_error",
        "huber",
        "epsilon_insensitive",
        "squared_epsilon_insensitive",
    ] = "log_loss"
    penalty: Literal["l2", "l1", "elasticnet"] | None = "l2"
    alpha: float = 1e-4
    l1_ratio: float = 0.15
    fit_intercept: bool = True
    epsilon: float = 0.1
    dtype: str = "float32"
    multiclass: Literal["softmax", "ovr"] = "softmax"
    class_weight: ClassWeight = None

    def __post_init__(self) -> None:
        check_option("loss", self.loss, LOSSES)
        check_option("penalty", self.penalty, ("l2", "l1", "elasticnet", None))
        object.__setattr__(self, "alpha", check_number("alpha", self.alpha, 0))
        object.__setattr__(self, "l1_ratio", check_number("l1_ratio", self.l1_ratio, 0, 1))
        object.__setattr__(self, "fit_intercept", bool(self.fit_intercept))
        object.__setattr__(self, "epsilon", check_number("epsilon", self.epsilon, 0, open_low=self.loss == "huber"))
        check_option("dtype", self.dtype, DTYPES)
        check_option("multiclass", self.multiclass, ("softmax", "ovr"))
        if not isinstance(self.class_weight, tuple):
            check_class_weight(self.class_weight)
            self._refuse_weights_of_numbers()
        else:
            weights = tuple(check_number("class_weight", weight, 0) for weight in self.class_weight)
            object.__setattr__(self, "class_weight", weights)

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self.loss in CLASSES

    def _refuse_weights_of_numbers(self) -> None:
        if self.class_weight is not None and not self.is_classifier:
            raise ValueError(
                f"class_weight={self.class_weight!r} with loss={self.loss!r}, which is for numbers: weigh rows with sample_weight"
            )

    def weighs_classes_apart(self, signature: Signature) -> bool:
        """Whether it learns one of several classes against the rest."""
        return signature.task == "multiclass" and (self.loss != "log_loss" or self.multiclass == "ovr")

    def with_class_weight(self, weights: tuple[float, ...]) -> LinearModel:
        """Return this model for classes of these weights, each in its own problem."""
        return replace(self, class_weight=weights)

    def build(self, signature: Signature) -> Network:
        """Return the network for data of this signature; see `Model.build`."""
        check_task(self.loss, self.is_classifier, signature)
        block: Block
        if signature.n_outputs == 1:
            block = Score(0, 0, signature.n_features, self.fit_intercept)
        else:
            block = Dense(0, 0, signature.n_features, signature.n_outputs, "identity", self.fit_intercept)
        ratio = {"l2": 0.0, "l1": 1.0, "elasticnet": self.l1_ratio, None: 0.0}[self.penalty]
        alpha = 0.0 if self.penalty is None else self.alpha
        loss = make_loss(self.loss, signature.task, self.epsilon, self.multiclass)
        if self.class_weight is not None and not isinstance(self.class_weight, tuple):
            if self.weighs_classes_apart(signature):
                raise ValueError(
                    f"class_weight={self.class_weight!r} of one class against the rest is a matter of the labels, which are not here: "
                    "use a tuple, one weight for each class; train() works them out"
                )
        elif self.class_weight is not None:
            if len(self.class_weight) != signature.n_outputs or isinstance(loss, Softmax):
                raise ValueError(
                    f"class_weight={self.class_weight} with {signature.n_outputs} outputs: must be one for each of three classes or "
                    "more, and one against the rest; use multiclass='ovr', or weigh the rows with sample_weight."
                )
            loss = OwnClass(loss, self.class_weight)
        return Network((block,), loss, signature, self.dtype, alpha * ratio, alpha * (1 - ratio), init_factor=0.0)
