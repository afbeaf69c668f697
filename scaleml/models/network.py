"""A network: blocks over one flat vector, a loss and a penalty. It holds no parameters and no data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np

from scaleml.arrays import Array, namespace, rows
from scaleml.models.base import Signature
from scaleml.models.blocks import Block, Workspace
from scaleml.models.decision import first_largest
from scaleml.models.flat_model import X_IS_DENSE
from scaleml.models.losses import BinaryLog, Loss
from scaleml.models.penalty import Penalty
from scaleml.models.probabilities import probabilities
from scaleml.models.scores import r_squared

__all__ = ["Network"]

# Rows that `statistics` looks at together: bounds the memory of hidden layers; fixed, so that the sums are, too.
CHUNK = 8192


@final
class Network:
    """What `Model.build` returns: the arithmetic of a model for data of one signature.

    Safe in one thread at a time, for it keeps scratch arrays between calls; a copy (``copy.copy``, pickle) has its
    own. Results are fresh arrays, except what is written into `out`.

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

    def __repr__(self) -> str:
        return f"Network({list(self.blocks)}, {type(self.loss).__name__}, size={self.size}, dtype={self.dtype.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_work": {}}

    def init(self, seed: int | np.random.RandomState) -> np.ndarray:
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
    def matrices(self) -> tuple[tuple[int, int, int], ...]:
        """Where the weight matrices lie in the vector: first item, rows, columns."""
        return tuple((block.start, block.n_weights // block.out_features, block.out_features) for block in self.blocks)

    def loss_grad(
        self,
        w: Array,
        x: Array,
        y: Array,
        sample_weight: Array | None,
        out: Array,
        ready: Callable[[slice], object] | None = None,
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and the summed weights.

        Parameters
        ----------
        w : array of shape (P,)
        x : array or CSR matrix of shape (n, n_features)
        y : array of shape (n,) or (n, n_targets)
            As `Signature` says; unchecked here, see `check`.
        sample_weight : array of shape (n,), or None for ones
        out : array of shape (P,)
            Receives the sum over the rows of ``sample_weight * d loss / d w``: not divided, without the penalty.
        ready : callable, optional
            Called with each block's slice as soon as that part of `out` is final, from the last block to the first: it
            may be sent while the other parts are computed.

        Returns
        -------
        loss_sum : float
        weight_sum : float
        """
        work = self._work.get(type(w)) or self._workspace(w)
        if len(self._parts) == 1:  # no slices: of a linear model's step every microsecond shows
            block, own = self._parts[0]
            scores, kept = block.forward(w, x, work)
            loss_sum, weight_sum, d = self.loss.gradient(scores, y, sample_weight, work)
            block.backward(w, kept, d, out, False, work)
            if ready is not None:
                ready(own)
            return loss_sum, weight_sum
        saved = []
        for block, own in self._parts:
            x, kept = block.forward(w[own], x, work)
            saved.append(kept)
        loss_sum, weight_sum, d = self.loss.gradient(x, y, sample_weight, work)
        for block, own in reversed(self._parts):
            d = block.backward(w[own], saved.pop(), d, out[own], block.start > 0, work)
            if ready is not None:
                ready(own)
        return loss_sum, weight_sum

    @property
    def parts(self) -> tuple[slice, ...]:
        """Each block's part of the vector."""
        return tuple(own for _, own in self._parts)

    @property
    def width(self) -> int:
        """Outputs of each column of X."""
        return self.signature.n_outputs

    @property
    def columns(self) -> int:
        """Columns of X."""
        return self.signature.n_features

    def why_dense(self) -> str:
        """Return why whole vectors have to be used, in words; nothing where they need not."""
        if not self.signature.sparse:
            return X_IS_DENSE
        if len(self.blocks) > 1:
            return "the model has hidden layers, whose parameters every row touches"
        if self.l1:
            return "an L1 penalty moves every coefficient: use penalty='l2' or None"
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
        """Make of the sum `g` (P,) of loss gradients at `w` (P,) the objective's: times `scale`, plus the penalty's, in place.

        Parameters
        ----------
        w, g : arrays of shape (P,)
            `g` is overwritten. The subgradient of L1 at 0 is 0.
        scale : float
            One over the weight of the batch.

        Returns
        -------
        float
            The sum of its squares: not finite where the gradient is not, or where it is very large.
        """
        return self._penalty.objective_grad(w, g, scale, self._work.get(type(w)) or self._workspace(w))

    def scores(self, w: Array, x: Array, work: Workspace | None = None) -> Array:
        """Return the last block's output, of shape (n,) or (n, n_outputs), for `w` (P,) and `x` (n, n_features).

        With a workspace it lies there.
        """
        for block in self.blocks:
            x, _ = block.forward(w[block.start : block.stop], x, work)
        return x

    def predict(self, w: Array, x: Array, work: Workspace | None = None) -> Array:
        """Return class codes, int32 of shape (n,), values of shape (n,) or (n, n_targets), or labels, int32 of that shape."""
        work = work or Workspace(namespace(w), self.dtype)
        return self._decide(self.scores(w, x, work), work)

    def predict_proba(self, w: Array, x: Array, work: Workspace | None = None) -> Array:
        """Return the probabilities of the classes, or of each label, of shape (n, K), for `w` (P,) and `x` (n, n_features).

        Raises
        ------
        ValueError
            The loss is not ``"log_loss"``.
        """
        return probabilities(self.loss, self.scores(w, x, work), several_labels=self._labels)

    def statistics(self, w: Array, x: Array, y: Array, sample_weight: Array | None = None) -> np.ndarray:
        """Return sums that add over parts of the data and that `summarise` turns into loss and score.

        Parameters
        ----------
        w : array of shape (P,)
        x : array or CSR matrix of shape (n, n_features)
        y : array of shape (n,) or (n, n_targets)
        sample_weight : array of shape (n,), optional

        Returns
        -------
        float64 array of shape (3,), or (2 + 3 n_outputs,) for numbers
            Loss, weight, and for classes: weight of the right predictions; for numbers: squared residuals, y and
            squared y, of each target.
        """
        total, work = np.zeros(self.n_statistics), Workspace(namespace(w), self.dtype)
        for start in range(0, x.shape[0], CHUNK):
            stop = min(start + CHUNK, x.shape[0])
            weight = None if sample_weight is None else sample_weight[start:stop]
            total += self._statistics(w, rows(x, start, stop), y[start:stop], weight, work)
        return total

    @property
    def n_statistics(self) -> int:
        """Length of what `statistics` returns."""
        return 2 + 3 * self.signature.n_outputs if self._is_real else 3

    def summarise(self, stats: np.ndarray) -> tuple[float, float]:
        """Return the mean loss, without penalty, and the score: accuracy, or the mean of the targets' R squared.

        Parameters
        ----------
        stats : float64 array
            A sum of what `statistics` returned; without any weight, both results are NaN.
        """
        loss, weight = float(stats[0]), float(stats[1])
        if not weight:
            return math.nan, math.nan
        if not self._is_real:
            return loss / weight, float(stats[2]) / weight
        residuals, y, y_squared = stats[2:].reshape(3, -1)
        return loss / weight, r_squared(residuals, y, y_squared, weight)

    def check(self, x: Array, y: Array, sample_weight: Array | None = None) -> None:
        """Check data once, before training, for `loss_grad` does not.

        Raises
        ------
        ValueError
            A shape or dtype does not fit the signature, a label lies outside the classes, or a value is not finite.
        """
        from scaleml.models.fitness import check_data

        check_data(self.signature, self.dtype, x, y, sample_weight)

    def _decide(self, scores: Array, work: Workspace) -> Array:
        if self.signature.task == "binary" or self._labels:
            return (scores > 0).astype(np.int32)
        if self.signature.task == "multiclass":
            return first_largest(scores, work).astype(np.int32)
        return scores

    def _statistics(self, w: Array, x: Array, y: Array, sample_weight: Array | None, work: Workspace) -> np.ndarray:
        scores = self.scores(w, x, work)
        weight = work.xp.ones(len(scores)) if sample_weight is None else sample_weight.astype(np.float64)
        if self._is_real:
            target = y.astype(np.float64)
            squares = ((target - scores) ** 2, target, target**2)
            rest = [float(value) for values in squares for value in (weight @ values).reshape(-1)]
        else:
            right = self._decide(scores, work) == y
            rest = [float(weight @ (right.all(axis=1) if right.ndim > 1 else right).astype(np.float64))]
        losses, _ = self.loss.evaluate(scores, y, work)
        return np.array([float((weight @ losses).sum()), float(weight.sum()), *rest])
