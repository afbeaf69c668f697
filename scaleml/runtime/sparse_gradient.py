"""Gradients of what a batch touches: the columns that its rows have, and nothing of the size of the model.

The parameters of a linear model are a matrix with a row of K outputs for each column of X, and one for the intercept. A *key* is
the number of such a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter as clock
from typing import Any, final
from weakref import WeakMethod

import numpy as np

from scaleml import arrays
from scaleml.runtime.gradient import TAIL, Gradients
from scaleml.runtime.plan import Plan


@dataclass(frozen=True)
class SparseGradient:
    """A gradient sum over some rows of data.

    Parameters
    ----------
    keys : (m,) integer array
        What it is not zero at, ascending.
    values : (m * K + 3,) array
        The sum at each key, then the tail of every gradient.
    width : int
        K.
    """

    keys: Any
    values: Any
    width: int

    @property
    def entries(self) -> Any:
        """(m * K,) where the values lie in the flat vector."""
        return self.keys if self.width == 1 else (self.keys[:, None] * self.width + np.arange(self.width)).ravel()


@dataclass
class _Batch:
    """A batch whose columns are numbered 0, 1, ...: X is as wide as it has to be."""

    place: tuple[int, int]
    rows: int
    x: Any
    y: Any
    weights: Any
    keys: Any
    inverse: Any
    here: bool
    """Whether the worker has, or has asked for, the newest parameters at these keys."""


@final
class SparseGradients:
    """What strategies call as ``ctx.gradient`` where updates are sparse; the rank's place in the epoch is `base`'s.

    Parameters
    ----------
    base : Gradients
        Where the batches are, what is broken, and where time is noted.
    penalise : bool
        Whether to add the L2 penalty of what is touched, as `Hogwild` describes; servers see to it themselves.
    """

    def __init__(self, plan: Plan, base: Gradients, penalise: bool) -> None:
        network = plan.network
        self.width = network.signature.n_outputs
        self.features = network.signature.n_features
        self.fetch: WeakMethod[Callable[[Any, Any], None]] | None = None
        """Brings the newest parameters at some keys into ``w``, where they lie elsewhere; weak, for its object holds this one."""
        self._base = base
        self._network = network
        self._intercept = np.arange(self.features, network.size // self.width, dtype=np.int32)  # one key or none
        self._mark = np.zeros(self.features, np.int32)
        self._batch: _Batch | None = None
        self._rarity: Any = None
        if penalise and network.l2:
            counts, rows = base.batches.column_counts(self.features)
            self._rarity = (rows / np.maximum(counts, 1)).astype(plan.dtype)

    def gradient(self, w: Any) -> SparseGradient:
        """Return the gradient sum over this rank's part of the batch; ``w`` (P,) is read at the batch's keys only."""
        base = self._base
        batch = self._at(base.consumed, base.count)
        if self.fetch is not None and not batch.here:
            fetch = self.fetch()
            assert fetch is not None
            fetch(batch.keys, w)
        begin = clock()
        width = self.width
        values = np.empty(len(batch.keys) * width + TAIL, w.dtype)
        if batch.rows:
            part = w.reshape(-1, width)[batch.keys].ravel()
            narrow = self._network.narrowed(len(batch.keys) - len(self._intercept))
            loss, weight = narrow.loss_grad(part, batch.x, batch.y, batch.weights, values[:-TAIL])
            base.check(loss, batch.y)
            if self._rarity is not None:
                self._penalise(values, part, batch, weight)
            values[-TAIL:] = loss, weight, batch.rows
        else:
            values[:] = 0
        base.finish(begin, batch.rows)
        return SparseGradient(batch.keys, values, width)

    def ahead(self) -> Any:
        """Return the keys of the next batch: with what is pushed now, its parameters can be asked for."""
        batch = self._at(*self._base.following)
        batch.here = True
        return batch.keys

    def _at(self, consumed: int, count: int) -> _Batch:
        """Return a batch; a call for the next one comes when this one is used up."""
        if self._batch is not None and self._batch.place == (consumed, count):
            return self._batch
        begin = clock()
        first = self._batch is None  # before the first step all have the same parameters
        x, y, weights, rows = self._base.batches.take(consumed, count)
        keys, inverse = self._keys(x.indices)
        narrow = arrays.csr(x.data, inverse, x.indptr, (x.shape[0], len(keys)))
        if rows:
            keys = np.concatenate([keys, self._intercept])
        self._batch = _Batch((consumed, count), rows, narrow, y, weights, keys, inverse, first)
        self._base.recorder.compute += clock() - begin
        return self._batch

    def _keys(self, indices: Any) -> tuple[Any, Any]:
        """Return the different columns, ascending, and for each index its place among them; no sort of the indices."""
        mark = self._mark
        order = np.arange(len(indices), dtype=np.int32)
        mark[indices] = order
        keys = indices[mark[indices] == order].astype(np.int32)  # one of each: whose mark has stayed
        keys.sort()
        mark[keys] = order[: len(keys)]
        return keys, mark[indices].astype(indices.dtype, copy=False)

    def _penalise(self, values: Any, part: Any, batch: _Batch, weight: float) -> None:
        count = len(batch.keys) - len(self._intercept)
        share = np.bincount(batch.inverse, minlength=count) * self._rarity[batch.keys[:count]]
        share *= self._network.l2 * weight / batch.rows
        cut = count * self.width
        values[:cut] += part[:cut] * np.repeat(share, self.width).astype(part.dtype)
