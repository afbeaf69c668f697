"""Models as users write them: frozen settings, which build a flat model for data of a given signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scaleml.checks import check_integer, check_number, check_option
from scaleml.models.augmentation import Augmentation
from scaleml.models.flat_model import FlatModel
from scaleml.representation import call_of

__all__ = ["Model", "Signature"]

ClassWeight = str | Mapping[Any, float] | tuple[float, ...] | None
"""``"balanced"``, a weight for some labels, one for each class in their order, or None."""

TASKS = ("binary", "multiclass", "regression")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Signature:
    """What a flat model must know of the data, and nothing more.

    Parameters
    ----------
    n_features : int
        Columns of X.
    n_outputs : int
        1 for binary classification and for one target; else the number of classes or targets.
    task : {"binary", "multiclass", "regression"}
        How ranks see y: floats 0 and 1 of shape (n,); int32 class codes of shape (n,); floats of shape (n,) for one
        target and (n, T) for several.
    dtype : {"float32", "float64"}
        Of X.
    sparse : bool
        Whether X is CSR.
    row, target : numpy.dtype, optional
        Of one row of X and of y where the model takes rows of any shape (``Model.takes_any_shape``), None for those of a table:
        a plain dtype, one with a shape such as ``np.dtype(("uint8", (3, 32, 32)))``, or a record with a field for each input.
        ``n_features`` then counts all items of a row.

    Raises
    ------
    ValueError
        A value breaks its rule.

    Examples
    --------
    >>> Signature(n_features=4, n_outputs=3, task="multiclass")
    Signature(n_features=4, n_outputs=3, task='multiclass')
    """

    n_features: int
    n_outputs: int = 1
    task: Literal["binary", "multiclass", "regression"] = "binary"
    dtype: str = "float32"
    sparse: bool = False
    row: np.dtype[Any] | None = None
    target: np.dtype[Any] | None = None

    def __repr__(self) -> str:
        """Return the call that makes it: what counts features, outputs and the task, and what is not at its default."""
        return call_of(self)

    def no_rows(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Return X of no rows, as a model gets it.

        Examples
        --------
        >>> Signature(12, row=np.dtype(("uint8", (3, 2, 2)))).no_rows().shape
        (0, 3, 2, 2)
        """
        return np.zeros((0, self.n_features), self.dtype) if self.row is None else np.zeros(0, self.row)

    def no_targets(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Return y of no rows, as a model gets it."""
        if self.target is not None:
            return np.zeros(0, self.target)
        wide = self.task == "regression" and self.n_outputs > 1
        return np.zeros((0, self.n_outputs) if wide else 0, np.int32 if self.task == "multiclass" else self.dtype)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_features", check_integer("n_features", self.n_features, 1))
        object.__setattr__(self, "n_outputs", check_integer("n_outputs", self.n_outputs, 1))
        check_option("task", self.task, TASKS)
        object.__setattr__(self, "dtype", str(self.dtype))
        check_option("dtype", self.dtype, DTYPES)
        if self.task == "binary" and self.n_outputs != 1:
            raise ValueError(
                f"n_outputs={self.n_outputs} with task='binary': two classes have one output, the score of the second; "
                "use n_outputs=1, or task='multiclass'."
            )
        if self.task == "multiclass" and self.n_outputs < 2:
            raise ValueError(
                f"n_outputs={self.n_outputs} with task='multiclass': every class has an output; use at least 2, or "
                "task='binary'."
            )


class Model(ABC):
    """The settings of a model, without its parameters: immutable, comparable, and its repr recreates it.

    Subclass it to train a model of your own: a frozen dataclass with these three, whose `build` returns a `FlatModel`.

    Attributes
    ----------
    dtype : {"float32", "float64"}
        Of the parameters and of all arithmetic; X is brought to it.
    takes_any_shape : bool
        Whether rows of X, and targets that are no labels, may be arrays of any shape and dtype, or records of several inputs; such a
        model gets them as they are (floats in ``dtype``), dense, and knows what they look like by ``Signature.row`` and ``target``.
        Otherwise X is a table of numbers.
    """

    dtype: str
    takes_any_shape: ClassVar[bool] = False

    def __repr__(self) -> str:
        """Return the call that makes it: the first setting, and those that are not at their default."""
        return call_of(self)

    @property
    def class_weight(self) -> ClassWeight:
        """What each class weighs: ``"balanced"``, a mapping from labels, or None; worked out by whoever knows the labels."""
        return None

    @property
    def how_to_scale(self) -> str:
        """What one does about pixels from 0 to 255 that the model takes as they are, in words."""
        return "divide X by 255"

    @property
    def augment(self) -> tuple[Augmentation, ...]:
        """How rows to train on are changed at random, one after the other, before the model gets them; held-out rows never are."""
        return ()

    def check_labels(self, labels: np.ndarray[Any, np.dtype[Any]]) -> None:  # noqa: B027  most take any
        """Raise ValueError where settings do not fit the labels of y, sorted, (classes,): their places are the codes that ranks see."""

    def weighs_classes_apart(self, signature: Signature) -> bool:
        """Whether each class weighs in a problem of its own, so that it is no matter of the rows' weights."""
        return False

    def with_class_weight(self, weights: tuple[float, ...]) -> Model:
        """Return this model for classes of these weights, one for each, where they weigh apart."""
        raise NotImplementedError(f"{self!r} weighs classes apart, so its class has to say how: with_class_weight")

    @property
    @abstractmethod
    def is_classifier(self) -> bool:
        """Whether y holds classes."""

    @abstractmethod
    def build(self, signature: Signature) -> FlatModel:
        """Return the flat model for data of this signature.

        Parameters
        ----------
        signature : Signature

        Returns
        -------
        FlatModel
            Cheap to build and to pickle; it holds no parameters and no data.

        Raises
        ------
        ValueError
            The model's loss does not fit the task.
        """


def check_class_weight(class_weight: object) -> None:
    """Raise unless it is ``"balanced"``, a mapping from labels to weights, or None."""
    if class_weight is None or class_weight == "balanced":
        return
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            f"class_weight={class_weight!r}: must be 'balanced', a dict such as {{'rare': 5.0}} that weighs labels, or None"
        )
    for label, weight in class_weight.items():
        check_number(f"class_weight[{label!r}]", weight, 0)


def check_task(loss: str, is_classifier: bool, signature: Signature) -> None:
    """Raise ValueError unless the loss fits the signature's task."""
    if is_classifier == (signature.task == "regression"):
        wanted = "classes" if is_classifier else "numbers"
        other = "'squared_error' for numbers" if is_classifier else "'log_loss' for classes"
        raise ValueError(
            f"loss={loss!r} with task={signature.task!r}: this loss is for targets that are {wanted}; use loss={other}."
        )
