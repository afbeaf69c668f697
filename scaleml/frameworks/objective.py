"""Objectives: losses by name, and what each asks of targets and outputs. The same for all frameworks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np

from scaleml.arrays import Array
from scaleml.checks import guess
from scaleml.frameworks.scorer import IGNORED, Scorer
from scaleml.models.base import Signature

__all__ = ["LINKS", "LOSSES", "Objective", "Targets", "canonical_name"]

Targets = Literal["classes", "labels", "numbers", "any"]
"""What a loss is for: one of several classes, labels that are each 0 or 1, numbers; or whatever its function takes."""

Link = Literal["softmax", "exp", "sigmoid"]
"""What makes probabilities of outputs."""

LOSSES: Final[dict[str, tuple[Targets, tuple[str, ...]]]] = {
    "cross_entropy": ("classes", ("crossentropy", "ce", "log_loss", "softmax_cross_entropy", "categorical_crossentropy")),
    "nll": ("classes", ("nll_loss", "negative_log_likelihood")),
    "binary_cross_entropy": ("labels", ("bce", "bce_with_logits", "binary_cross_entropy_with_logits", "binary_crossentropy")),
    "mse": ("numbers", ("mse_loss", "squared_error", "mean_squared_error", "l2")),
    "l1": ("numbers", ("l1_loss", "mae", "absolute_error", "mean_absolute_error")),
    "huber": ("numbers", ("huber_loss",)),
    "smooth_l1": ("numbers", ("smooth_l1_loss",)),
}  # fmt: skip
"""Losses by name, what each is for, and what else it is called."""

LINKS: Final[dict[str, Link]] = {"cross_entropy": "softmax", "nll": "exp", "binary_cross_entropy": "sigmoid"}
"""Of the losses that know probabilities."""


def canonical_name(loss: str) -> str:
    """Return a loss's own name.

    Raises
    ------
    ValueError
        There is no such loss; names the nearest.

    Examples
    --------
    >>> canonical_name("bce_with_logits")
    'binary_cross_entropy'
    """
    asked = loss.lower().replace("-", "_").replace(" ", "_")
    known = {other: name for name, (_, others) in LOSSES.items() for other in (name, *others)}
    if asked not in known:
        listed = ", ".join(repr(name) for name in LOSSES)
        raise ValueError(
            f"loss={loss!r}: must be one of {listed}, or a function of (outputs, targets).{guess(asked, list(known))}"
        )
    return known[asked]


@final
@dataclass(frozen=True)
class Objective:
    """What a loss asks of the targets and outputs of data of one signature.

    Parameters
    ----------
    name : str
        The loss in words, for errors.
    targets : {"classes", "labels", "numbers", "any"}
        What it is for.
    signature : Signature
        Of the data.
    link : {"softmax", "exp", "sigmoid"} or None
        Makes probabilities of outputs.

    Raises
    ------
    ValueError
        The loss is not for such targets.
    """

    name: str
    targets: Targets
    signature: Signature
    link: Link | None = None

    def __post_init__(self) -> None:
        task, kind = self.signature.task, self._dtype.kind
        if self.targets == "numbers" and task != "regression":
            raise ValueError(
                f"{self.name} is for numbers, but y holds labels: use loss='cross_entropy', or regress on numbers."
            )
        if self.targets == "labels" and task == "multiclass":
            raise ValueError(
                f"{self.name} is for two classes, or labels that are each 0 or 1, but y has {self.signature.n_outputs} classes: use "
                "loss='cross_entropy', with one output a class."
            )
        if self.targets == "classes" and task == "regression" and kind not in "iu":
            raise ValueError(
                f"{self.name} is for classes, but y holds numbers of dtype {self._dtype}: use loss='mse' for numbers; class "
                "codes are integers, y.astype('int64')."
            )
        if self.targets == "numbers" and kind not in "fiu":
            raise ValueError(f"{self.name} is for numbers, but y has dtype {self._dtype}: pass y.astype('float32').")

    @property
    def _dtype(self) -> np.dtype[Any]:
        target = self.signature.target
        if target is not None:
            return target.base
        return np.dtype("int32" if self.signature.task == "multiclass" else self.signature.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row's target."""
        signature = self.signature
        if signature.target is not None and signature.task == "regression":
            return tuple(signature.target.shape)
        return (signature.n_outputs,) if signature.task == "regression" and signature.n_outputs > 1 else ()

    def kind_of_targets(self, output: tuple[int, ...] | None) -> Literal["float", "integer"]:
        """Return what a loss is given beside outputs of this shape: class codes are whole numbers, labels of 0 and 1 are not."""
        if self.targets != "any":
            return "integer" if self.targets == "classes" else "float"
        if self.signature.task == "binary":
            return "integer" if output is not None and output[1:] == (2,) else "float"
        return "float" if self._dtype.kind == "f" else "integer"

    @property
    def classes(self) -> int | None:
        """How many classes y has; None where it does not say."""
        task = self.signature.task
        return None if task == "regression" else 2 if task == "binary" else self.signature.n_outputs

    def trial_targets(self, rows: int) -> Array:
        """Return targets to try a loss on."""
        random, shape = np.random.default_rng(1), (rows, *self.shape)
        if self.signature.task == "regression" and self.targets != "labels" and self._dtype.kind == "f":
            return random.standard_normal(shape).astype(self._dtype)
        return (np.arange(np.prod(shape, dtype=int)) % 4 == 0).reshape(shape).astype(self._dtype)

    def axis_of_classes(self, output: tuple[int, ...]) -> int:
        """Return along which axis of outputs of this shape the scores of the classes lie: the second, as in PyTorch, or the last.

        Raises
        ------
        ValueError
            The outputs do not fit the targets.
        """
        own = self.shape
        fits = [axis for axis in (1, len(output) - 1) if axis and (*output[1:axis], *output[axis + 1 :]) == own]
        one = not own and self.classes in (2, None) and output[1:] in ((), (1,))
        hint = " With one output for two classes use loss='binary_cross_entropy'." if one else ""
        if not fits:
            raise ValueError(
                f"{self.name} wants outputs of shape ({', '.join(['rows', *map(str, own), 'classes'])}), but the module returns "
                f"{_shape(output)} for targets of shape {_shape((0, *own))}.{hint}"
            )
        if own and len(set(fits)) == 2:
            raise ValueError(
                f"the module returns {_shape(output)} for targets of shape {_shape((0, *own))}: whether the classes are the second or the "
                "last axis cannot be told; pass a function as loss that moves them, such as "
                "lambda output, y: cross_entropy(output.movedim(-1, 1), y)."
            )
        axis = fits[-1]
        if self.classes not in (None, output[axis]):
            raise ValueError(
                f"the module's outputs are {output[axis]}, but y has {self.classes} classes: give its last layer {self.classes} "
                f"outputs.{hint}"
            )
        return axis

    def check_alike(self, output: tuple[int, ...]) -> None:
        """Raise ValueError unless outputs have the targets' shape, but for axes of length one: nothing is broadcast."""
        own = (*output[:1], *self.shape)
        if [n for n in output[1:] if n != 1] != [n for n in own[1:] if n != 1]:
            raise ValueError(
                f"{self.name} compares the outputs with the targets one by one, but the module returns shape {_shape(output)} for "
                f"targets of shape {_shape(own)}: give its last layer as many outputs as a row has targets."
            )

    def scorer(self, output: tuple[int, ...] | None, ignored: int = IGNORED) -> Scorer:
        """Return what is said of outputs of this shape; None where they are no single array."""
        binary = self.signature.task == "binary"
        if self.targets == "classes":
            assert output is not None, "checked before"
            return Scorer("classes", self.axis_of_classes(output), self.link, binary, self.shape, ignored)
        if self.targets == "labels":
            return Scorer("labels", link=self.link, binary=binary, shape=self.shape)
        if self.targets == "numbers":
            return Scorer("numbers", shape=self.shape)
        return self._of_any(output)

    def _of_any(self, output: tuple[int, ...] | None) -> Scorer:
        """Guess by the shapes what a loss of the user's reads in the outputs."""
        if output is None:
            return Scorer("nothing", shape=self.shape)
        items = [n for n in output[1:] if n != 1]
        if self.classes is not None and output[1:] == (self.classes,):
            return Scorer("classes", 1, None, self.classes == 2)
        if self.classes == 2 and not items:
            return Scorer("labels", binary=True)
        if self.classes is None and self._dtype.kind == "f" and items == [n for n in self.shape if n != 1]:
            return Scorer("numbers", shape=self.shape)
        return Scorer("nothing", shape=self.shape)


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['rows', *map(str, shape[1:])])}{',' if len(shape) == 1 else ''})"
