"""Network: blocks over one flat vector, a loss and a penalty. The flat model of linear models and perceptrons."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from scaleml.arrays import Array, Matrix, is_sparse, namespace, rows
from scaleml.models.base import Signature
from scaleml.models.blocks import Block, Workspace
from scaleml.models.flat_model import (
    X_IS_DENSE,
    FlatModel,
    Layered,
    Named,
    NamesScore,
    Penalised,
    Probabilistic,
    Ready,
    Reusing,
    Scoring,
    Sparse,
)
from scaleml.models.losses import BinaryLog, Loss, Penalty
from scaleml.models.parameter_names import names_of
from scaleml.models.scoring import first_largest, probabilities, r_squared

__all__ = ["Network"]

# Rows that `statistics` looks at together: bounds the memory of hidden layers; fixed, so that the sums are, too.
CHUNK = 8192


@final
class Network:
    """The arithmetic of a model for data of one signature: a `FlatModel` that is `Penalised`, `Layered`, `Named`, `Scoring` and, of
    one block, `Sparse`.

    Safe in one thread at a time, for it keeps scratch arrays between calls; a copy (``copy.copy``, pickle) has its
    own. Results are fresh arrays, except what is written into `out`, and those of `reusing`.

    Parameters
    ----------
    blocks : tuple of Block
        Their slices follow each other from 0.
    loss : Loss
    signature : Signature
    dtype : str
        Of the parameters.
    l1, l2 : float
        The penalty is ``l1 * |weights|_1 + l2 * |weights|_2^2 / 2``, without the biases.
    init_factor : float
        Weights and biases start uniform within ``sqrt(init_factor / (inputs + outputs))``.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.models import LinearModel, Signature
    >>> net = LinearModel(penalty=None).build(Signature(2))
    >>> w, g = net.init(seed=0), np.empty(net.size, "f4")
    >>> x, y = np.array([[1, 0], [0, 1]], "f4"), np.array([0, 1], "f4")
    >>> loss_sum, weight_sum = net.loss_grad(w, x, y, None, g)
    >>> round(loss_sum / weight_sum, 3), g.tolist()
    (0.693, [0.5, -0.5, 0.0])
    """

    devices: Final = ("cpu", "cuda")

    def __init__(
        self,
        blocks: tuple[Block, ...],
        loss: Loss,
        signature: Signature,
        dtype: str,
        l1: float,
        l2: float,
        *,
        init_factor: float,
    ) -> None:
        self.blocks = blocks
        self.loss = loss
        self.signature = signature
        self.dtype = np.dtype(dtype)
        self.l1, self.l2 = l1, l2
        self._penalty = Penalty(blocks, l1, l2)
        self.size = blocks[-1].stop
        self._parts = tuple((block, slice(block.start, block.stop)) for block in blocks)
        self._init_factor = init_factor
        is_real = signature.task == "regression"
        self._labels = is_real and isinstance(loss, BinaryLog)  # targets of 0 and 1, several a row
        self._is_real = is_real and not self._labels
        self._work: dict[type, Workspace] = {}
        self._reuses = False

    def __repr__(self) -> str:
        return f"Network({list(self.blocks)}, {type(self.loss).__name__}, size={self.size}, dtype={self.dtype.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_work": {}}

    def init(self, seed: int | np.random.RandomState) -> Array:
        """Return the parameters (P,) at the start: zeros for a linear model, Glorot's uniform for an MLP.

        Parameters
        ----------
        seed : int or RandomState
            0 to 2**32 - 1; or what to draw from.
        """
        out = np.zeros(self.size, self.dtype)
        if self._init_factor:
            # Not Generator: RandomState's stream is frozen for ever, and scikit-learn's.
            random = seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
            for block in self.blocks:
                bound = math.sqrt(self._init_factor / (block.in_features + block.out_features))
                out[block.start : block.stop] = random.uniform(-bound, bound, block.stop - block.start)
        return out

    @property
    def parts(self) -> tuple[slice, ...]:
        """Each block's part of the vector, from the first to the last."""
        return tuple(own for _, own in self._parts)

    @property
    def matrices(self) -> tuple[tuple[int, int, int], ...]:
        """Where the weight matrices lie in the vector: first item, rows, columns."""
        return tuple((block.start, block.n_weights // block.out_features, block.out_features) for block in self.blocks)

    @property
    def named_parts(self) -> tuple[tuple[str, slice], ...]:
        """Each parameter array's name, see `names_of`, and its part of the vector."""
        return names_of(self.blocks)

    def loss_grad(
        self,
        w: Array,
        x: Matrix,
        y: Array,
        weights: Array | None,
        out: Array,
        ready: Ready | None = None,
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and weights; see `FlatModel.loss_grad`.

        `y` is as `Signature` says; unchecked here. `ready` is called with each block's slice.
        """
        work = self._work.get(type(w)) or self._workspace(w)
        if len(self._parts) == 1:  # no slices: of a linear model's step every microsecond shows
            block, own = self._parts[0]
            scores, kept = block.forward(w, x, work)
            loss_sum, weight_sum, d = self.loss.gradient(scores, y, weights, work)
            block.backward(w, kept, d, out, False, work)
            if ready is not None:
                ready(own)
            return loss_sum, weight_sum
        saved, h = [], x
        for block, own in self._parts:
            h, kept = block.forward(w[own], h, work)
            saved.append(kept)
        assert type(h) is np.ndarray or not is_sparse(h)
        loss_sum, weight_sum, d = self.loss.gradient(h, y, weights, work)
        for block, own in reversed(self._parts):
            d = block.backward(w[own], saved.pop(), d, out[own], block.start > 0, work)
            if ready is not None:
                ready(own)
        return loss_sum, weight_sum

    @property
    def width(self) -> int:
        """Outputs: the parameters of a column of X."""
        return self.blocks[0].out_features

    @property
    def columns(self) -> int:
        """Columns of X."""
        return self.blocks[0].in_features

    def why_dense(self) -> str:
        """Return why gradients are whole vectors, in words; nothing where they are zero at the columns that no row of a batch has."""
        if not self.signature.sparse:
            return X_IS_DENSE
        if len(self.blocks) > 1:
            return "the model has hidden layers, whose parameters every row touches"
        return ""

    def narrowed(self, columns: int) -> Network:
        """Return this linear network for data of so many columns, for a batch that has no others; scratch is shared.

        Examples
        --------
        >>> from scaleml.models import LinearModel, Signature
        >>> LinearModel().build(Signature(1000)).narrowed(3).blocks
        (Score(0, 0, 3, True),)
        """
        part = (self.blocks[0].narrowed(columns),)
        network = Network(part, self.loss, self.signature, self.dtype.name, self.l1, self.l2, init_factor=0.0)
        network._work = self._work
        return network

    def _workspace(self, w: Array) -> Workspace:
        work = self._work.get(type(w))
        if work is None:
            work = self._work[type(w)] = Workspace(namespace(w), self.dtype)
        return work

    def penalty(self, w: Array) -> float:
        """Return the penalty of the weights of `w` (P,); the objective is ``loss_sum / weight_sum + penalty(w)``."""
        return self._penalty.value(w)

    def objective_grad(self, w: Array, g: Array, scale: float = 1.0) -> float:
        """Make of the sum `g` (P,) of loss gradients at `w` (P,) the objective's; see `Penalised.objective_grad`.

        `scale` is one over the weight of the batch. The subgradient of L1 at 0 is 0.
        """
        return self._penalty.objective_grad(w, g, scale, self._work.get(type(w)) or self._workspace(w))

    def reusing(self) -> Network:
        """Return this network with scratch of its own, in which predictions lie until the next call overwrites them."""
        network = copy.copy(self)
        network._reuses = True
        return network

    def scores(self, w: Array, x: Matrix) -> Array:
        """Return the last block's output, of shape (n,) or (n, n_outputs), for `w` (P,) and `x` (n, n_features)."""
        return self._scores(w, x, self._scratch(w))

    def predict(self, w: Array, x: Matrix) -> Array:
        """Return class codes, int32 of shape (n,), values of shape (n,) or (n, n_targets), or labels, int32 of that shape."""
        work = self._scratch(w)
        return self._decide(self._scores(w, x, work), work)

    def predict_proba(self, w: Array, x: Matrix) -> Array:
        """Return the probabilities of the classes, or of each label, of shape (n, K), for `w` (P,) and `x` (n, n_features).

        Raises
        ------
        ValueError
            The loss is not ``"log_loss"``.
        """
        return probabilities(self.loss, self.scores(w, x), several_labels=self._labels)

    def statistics(self, w: Array, x: Matrix, y: Array, weights: Array | None = None) -> Array:
        """Return sums that add over parts of the data and that `summarise` turns into loss and score.

        Returns
        -------
        float64 array of shape (3,), or (2 + 3 n_outputs,) for numbers
            Loss, weight, and for classes: weight of the right predictions; for numbers: squared residuals, y and
            squared y, of each target.
        """
        total, work = np.zeros(self.n_statistics), Workspace(namespace(w), self.dtype)
        for start in range(0, x.shape[0], CHUNK):
            stop = min(start + CHUNK, x.shape[0])
            weight = None if weights is None else weights[start:stop]
            total += self._statistics(w, rows(x, start, stop), y[start:stop], weight, work)
        return total

    @property
    def n_statistics(self) -> int:
        """Length of what `statistics` returns."""
        return 2 + 3 * self.signature.n_outputs if self._is_real else 3

    @property
    def score_name(self) -> str:
        """What `summarise` gives as the score."""
        return "R2" if self._is_real else "accuracy"

    def summarise(self, totals: Array) -> tuple[float, float]:
        """Return the mean loss, without penalty, and the score: accuracy, or the mean of the targets' R squared."""
        loss, weight = float(totals[0]), float(totals[1])
        if not weight:
            return math.nan, math.nan
        if not self._is_real:
            return loss / weight, float(totals[2]) / weight
        residuals, y, y_squared = totals[2:].reshape(3, -1)
        return loss / weight, r_squared(residuals, y, y_squared, weight)

    def _scratch(self, w: Array) -> Workspace:
        """Return where results may lie: in fresh memory, but for a network that reuses its own."""
        return self._workspace(w) if self._reuses else Workspace(namespace(w), self.dtype)

    def _scores(self, w: Array, x: Matrix, work: Workspace) -> Array:
        h = x
        for block in self.blocks:
            h, _ = block.forward(w[block.start : block.stop], h, work)
        assert not is_sparse(h)
        return h

    def _decide(self, scores: Array, work: Workspace) -> Array:
        if self.signature.task == "binary" or self._labels:
            return (scores > 0).astype(np.int32)
        if self.signature.task == "multiclass":
            return first_largest(scores, work).astype(np.int32)
        return scores

    def _statistics(self, w: Array, x: Matrix, y: Array, weights: Array | None, work: Workspace) -> Array:
        scores = self._scores(w, x, work)
        weight = work.xp.ones(len(scores)) if weights is None else weights.astype(np.float64)
        if self._is_real:
            target = y.astype(np.float64)
            squares = ((target - scores) ** 2, target, target**2)
            rest = [float(value) for values in squares for value in (weight @ values).reshape(-1)]
        else:
            right = self._decide(scores, work) == y
            rest = [float(weight @ (right.all(axis=1) if right.ndim > 1 else right).astype(np.float64))]
        losses, _ = self.loss.evaluate(scores, y, work)
        return np.array([float((weight @ losses).sum()), float(weight.sum()), *rest])


if TYPE_CHECKING:

    def _is_all_of(
        network: Network,
    ) -> tuple[FlatModel, Penalised, Layered, Named, Scoring, Probabilistic, NamesScore, Reusing, Sparse]:
        return network, network, network, network, network, network, network, network, network
