"""Sparse gradients: of the columns that a batch's rows have, and nothing of the size of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import final
from weakref import WeakMethod

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix
from scaleml.models.flat_model import Sparse
from scaleml.runtime.gradient import Gradient
from scaleml.runtime.plan import Plan
from scaleml.runtime.weight_decay import WeightDecay
from scaleml.strategies.context import TAIL, SparseGradient


@dataclass
class _Batch:
    """A batch whose columns are numbered 0, 1, ...: X is as wide as it has to be."""

    place: tuple[int, int]
    rows: int
    x: Matrix
    y: Array
    weights: Array | None
    keys: Array
    inverse: Array
    here: bool
    """Whether the worker has, or has asked for, the newest parameters at these keys."""


@final
class SparseGradients:
    """What strategies call as ``ctx.touched_gradient`` where updates are sparse; the rank's place in the epoch is `base`'s.

    Parameters
    ----------
    base : Gradient
        Where the batches are, what is broken, and where time is noted.
    penalise : bool
        Whether to add the L2 penalty of what is touched, as `Hogwild` describes; servers see to it themselves.
    """

    def __init__(self, plan: Plan, base: Gradient, penalise: bool) -> None:
        model = plan.model
        assert isinstance(model, Sparse)
        self.width = model.width
        self.features = model.columns
        self.fetch: WeakMethod[Callable[[Array, Array], None]] | None = None
        """Brings the newest parameters at some keys into ``w``, where they lie elsewhere; weak, for its object holds this one."""
        self.decay: WeightDecay | None = None
        """What ``w``'s coefficients are yet to be multiplied by."""
        self._base = base
        self._model = model
        self._l2 = model.l2
        self._now = base.now
        self._intercept = np.arange(self.features, plan.model.size // self.width, dtype=np.int32)  # one key or none
        self._mark = np.zeros(self.features, np.int32)
        self._batch: _Batch | None = None
        self._rarity: Array | None = None
        if penalise and model.l2:
            counts, rows = base.batches.column_counts(self.features)
            self._rarity = (rows / np.maximum(counts, 1)).astype(plan.model.dtype)

    def compute(self, w: Array) -> SparseGradient:
        """Return the gradient sum over this rank's part of the batch; ``w`` (P,) is read at the batch's keys only."""
        base = self._base
        batch = self._at(base.consumed, base.count)
        if self.fetch is not None and not batch.here:
            fetch = self.fetch()
            assert fetch is not None
            fetch(batch.keys, w)
        begin = self._now()
        width = self.width
        values = np.empty(len(batch.keys) * width + TAIL, w.dtype)
        if batch.rows:
            part = w.reshape(-1, width)[batch.keys].ravel()
            if self.decay is not None:
                self.decay.at(part, batch.keys, width)
            narrow = self._model.narrowed(len(batch.keys) - len(self._intercept))
            loss, weight = narrow.loss_grad(part, batch.x, batch.y, batch.weights, values[:-TAIL])
            if (base.skips or not isfinite(loss)) and base.is_left_out(loss, values[:-TAIL], batch.y):
                values[:] = 0
                values[-1] = batch.rows
            else:
                if self._rarity is not None:
                    self._penalise(values, part, batch, weight)
                values[-TAIL:] = loss, weight, batch.rows
        else:
            values[:] = 0
        base.finish(begin, batch.rows)
        return SparseGradient(batch.keys, values, width)

    def ahead(self) -> Array:
        """Return the keys of the next batch: with what is pushed now, its parameters can be asked for."""
        batch = self._at(*self._base.following)
        batch.here = True
        return batch.keys

    def forget(self) -> None:
        """Take the next batch anew: the order of the rows may be another."""
        self._batch = None

    def _at(self, consumed: int, count: int) -> _Batch:
        """Return a batch; a call for the next one comes when this one is used up."""
        if self._batch is not None and self._batch.place == (consumed, count):
            return self._batch
        begin = self._now()
        first = self._batch is None  # before the first step all have the same parameters
        x, y, weights, rows = self._base.batches.take(consumed, count)
        assert arrays.is_sparse(x), "sparse gradients are of CSR data alone"
        keys, inverse = self._keys(x.indices)
        narrow = arrays.csr(x.data, inverse, x.indptr, (x.shape[0], len(keys)))
        if rows:
            keys = np.concatenate([keys, self._intercept])
        self._batch = _Batch((consumed, count), rows, narrow, y, weights, keys, inverse, first)
        self._base.recorder.compute += self._now() - begin
        return self._batch

    def _keys(self, indices: Array) -> tuple[Array, Array]:
        """Return the different columns, ascending, and for each index its place among them; no sort of the indices."""
        mark = self._mark
        order = np.arange(len(indices), dtype=np.int32)
        mark[indices] = order
        keys = indices[mark[indices] == order].astype(np.int32)  # one of each: whose mark has stayed
        keys.sort()
        mark[keys] = order[: len(keys)]
        return keys, mark[indices].astype(indices.dtype, copy=False)

    def _penalise(self, values: Array, part: Array, batch: _Batch, weight: float) -> None:
        rarity = self._rarity
        assert rarity is not None
        count = len(batch.keys) - len(self._intercept)
        share: Array = np.bincount(batch.inverse, minlength=count) * rarity[batch.keys[:count]]
        share *= self._l2 * weight / batch.rows
        cut = count * self.width
        values[:cut] += part[:cut] * np.repeat(share, self.width).astype(part.dtype)
