"""The flat model: what a rank trains. All parameters are one vector, and every strategy, codec and server sees nothing else.

Invariants:

- A model holds no parameters and no data: each call is given the vector ``w`` of shape (P,), which it reads and never writes. What
  it holds beside them, its buffers, it says, gives and takes (`Buffered`).
- ``loss_grad`` writes the *sum* over the rows, not divided, without penalty: sums of parts of a batch add up to the batch's.
- What several ranks compute on the same rows and the same ``w`` has the same bits.
- One thread at a time uses a model: it may keep scratch arrays. A copy (``copy.copy``, pickle) has its own.

On a GPU (`scaleml.models.on_devices`) all arrays are CuPy's, and sums that are returned may be arrays of no dimensions there: a model
does not look at what it has queued on the current stream. One that is of another library shares memory by DLPack; see `scaleml.devices`.

What only some models have is a protocol of its own here, asked for with ``isinstance`` and never assumed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from scaleml.arrays import Array, Matrix
from scaleml.models.buffers import BufferRule, Buffers

X_IS_DENSE = "X is dense: pass a CSR matrix"
"""Why a model that could be sparse is not, on data that leaves it no choice."""

Ready = Callable[[slice], object]
"""Called with a part of the vector as soon as its gradient is final."""


@runtime_checkable
class FlatModel(Protocol):
    """What every model is.

    Attributes
    ----------
    size : int
        P, the number of parameters.
    dtype : numpy.dtype
        Theirs, and that of gradients and X.
    """

    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

    def init(self, seed: int) -> Array:
        """Return the parameters (P,) at the start, the same for the same seed."""

    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and the summed weights.

        Parameters
        ----------
        w, out : arrays of shape (P,)
        x : (n, ...) array, or CSR matrix
        y : (n, ...) array
        weights : (n,) array, or None for ones
        ready : callable, optional
            Called with parts of the vector, from the last to the first and together all of it, as soon as each is final.
        """

    def statistics(self, w: Array, x: Matrix, y: Array, weights: Array | None = None) -> Array:
        """Return float64 sums (k,) that add over parts of the data, also of no rows, and that `summarise` understands."""

    def summarise(self, totals: Array) -> tuple[float, float]:
        """Return the mean loss, without penalty, and the score, from sums of `statistics`; NaN where nothing weighs anything."""

    def predict(self, w: Array, x: Matrix) -> Array:
        """Return class codes (n,), or values (n,) or (n, targets), of the rows of `x`."""


@runtime_checkable
class Penalised(Protocol):
    """A model whose objective is the mean loss and a penalty of the parameters."""

    def penalty(self, w: Array) -> float:
        """Return the penalty at `w` (P,)."""

    def objective_grad(self, w: Array, g: Array, scale: float = 1.0) -> float:
        """Make of the sum `g` (P,) of loss gradients the objective's gradient: times `scale`, plus the penalty's, in place.

        Returns the sum of its squares: not finite where the gradient is not, or where it is very large. On a GPU `scale` may be an
        array of one item there, and so may what is returned.
        """


@runtime_checkable
class Layered(Protocol):
    """A model whose parameters are layers one after the other: gradients may be sent while others are computed."""

    @property
    def parts(self) -> tuple[slice, ...]:
        """Each layer's part of the vector, from the first to the last."""

    @property
    def matrices(self) -> tuple[tuple[int, int, int], ...]:
        """Where weight matrices lie in the vector: first item, rows, columns."""


@runtime_checkable
class Named(Protocol):
    """A model whose parameters have names: parameter groups are chosen by them."""

    @property
    def named_parts(self) -> tuple[tuple[str, slice], ...]:
        """Each parameter array's name and its part of the vector; they follow each other from 0 to P, and no name comes twice."""


@runtime_checkable
class Scoring(Protocol):
    """A model that decides by scores."""

    def scores(self, w: Array, x: Matrix) -> Array:
        """Return the scores of the rows of `x`: (n,), or (n, outputs)."""


@runtime_checkable
class Probabilistic(Protocol):
    """A classifier that knows probabilities."""

    def predict_proba(self, w: Array, x: Matrix) -> Array:
        """Return the probabilities of the classes, (n, classes); raise ValueError where this one's loss gives none."""


@runtime_checkable
class NamesScore(Protocol):
    """A model that says what its score is; of one that does not, it is called just that."""

    @property
    def score_name(self) -> str:
        """Such as ``"accuracy"`` or ``"R2"``."""


@runtime_checkable
class Weighing(Protocol):
    """A model that says whether rows may have weights: one whose loss is a single number for all of them cannot weigh any."""

    @property
    def why_no_weights(self) -> str:
        """Why they may not, in words and with the remedy; "" where they may."""


@runtime_checkable
class Unscaled(Protocol):
    """A model that knows whether it multiplies numbers of X as they are, which of pixels from 0 to 255 is hardly meant."""

    @property
    def takes_as_it_is(self) -> bool:
        """Whether nothing scales numbers that may be pixels before the first product; False where it cannot be told."""


@runtime_checkable
class Normalising(Protocol):
    """A model that may need several rows for a gradient, as BatchNorm does."""

    @property
    def least_rows(self) -> int:
        """How many rows a gradient is of at least, where it is of any."""


@runtime_checkable
class Stochastic(Protocol):
    """A model that draws random numbers in training, such as dropout's."""

    def at(self, seed: int, step: int, rank: int) -> None:
        """Be told before each gradient of a rank whose numbers to draw: the same for the same place, whatever was drawn before."""


@runtime_checkable
class Buffered(Protocol):
    """A model whose gradients also change buffers, which its predictions read: BatchNorm's running statistics, say.

    They are no parameters: nothing descends along them, so no strategy, codec or server knows of them. The model holds them, and whoever
    has the model says which: a rank sets those that it begins with, keeps them in its train state, has all ranks agree before each
    evaluation and at the end, and leaves them beside the parameters. Between two calls of `set_buffers`, `loss_grad` alone
    changes them. A copy of the model (``copy.copy``, pickle) has buffers of its own, with the values of that moment.

    *For a framework.* Floats go one after the other into ``values``, in the model's dtype, whole numbers and truth values into
    ``counts``, always in the same order. Where the framework keeps them as a tree or as variables that are no parameters (Flax's
    ``batch_stats``, Keras's ``non_trainable_variables``), that tree flattened is these vectors. Seeds of random streams are none of
    them: see `Stochastic`. A model that has none for the module at hand returns two empty vectors.
    """

    @property
    def buffer_rule(self) -> BufferRule:
        """What ranks agree on."""

    def first_buffers(self) -> Buffers:
        """Return those that training begins with."""

    def buffers(self) -> Buffers:
        """Return copies of those that the model holds now."""

    def set_buffers(self, buffers: Buffers) -> None:
        """Have the model hold copies of these."""


@runtime_checkable
class OfModule(Protocol):
    """A model that was made of another framework's module, and gives one back."""

    def module(self, w: Array) -> Any:
        """Return a module with the parameters `w` (P,), which is the caller's."""


@runtime_checkable
class Reusing(Protocol):
    """A model that can predict part after part without taking new memory for each."""

    def reusing(self) -> Self:
        """Return this model with scratch of its own, in which each result lies until the next call overwrites it."""


@runtime_checkable
class Sparse(Protocol):
    """A linear model of CSR rows, whose gradient is zero but at the columns that a batch has.

    Its parameters are a matrix with a row of `width` outputs for each column of X, and perhaps one more for the intercept.
    """

    @property
    def width(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def l1(self) -> float: ...
    @property
    def l2(self) -> float: ...

    def why_dense(self) -> str:
        """Return why gradients are whole vectors after all, in words; nothing where they need not be."""

    def narrowed(self, columns: int) -> FlatModel:
        """Return this model for data of so many columns, for a batch that has no others; scratch is shared."""


def parts_of(model: FlatModel) -> tuple[slice, ...]:
    """Return the layers' parts of the vector, from the first to the last: one for all where the model names none."""
    return model.parts if isinstance(model, Layered) else (slice(0, model.size),)


def matrices_of(model: FlatModel) -> tuple[tuple[int, int, int], ...]:
    """Return where weight matrices lie in the vector; nothing where the model does not say."""
    return model.matrices if isinstance(model, Layered) else ()


def named_parts_of(model: FlatModel) -> tuple[tuple[str, slice], ...]:
    """Return the parameters' names and their parts of the vector; nothing where the model names none."""
    return model.named_parts if isinstance(model, Named) else ()


def score_name_of(model: FlatModel) -> str:
    """Return what the model's score is called."""
    return model.score_name if isinstance(model, NamesScore) else "score"


def penalty_of(model: FlatModel, w: Array) -> float:
    """Return the penalty at `w` (P,), 0 where the model has none."""
    return model.penalty(w) if isinstance(model, Penalised) else 0.0


def with_buffers(model: FlatModel, buffers: Buffers | None) -> FlatModel:
    """Return a model that predicts with these buffers: itself where it has none.

    Raises
    ------
    ValueError
        It has some, but they are not known.
    """
    if not isinstance(model, Buffered) or not len(model.first_buffers()):
        return model
    if buffers is None:
        raise ValueError(
            "the model has buffers, such as BatchNorm's running statistics, but those of these parameters are lost"
        )
    own = copy.copy(model)
    own.set_buffers(buffers)
    return own
