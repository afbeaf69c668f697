"""Whether only what a batch touches is computed, sent and updated, or whole vectors are: a function of the plan, the same on all ranks.

A gradient of the loss is zero but at the columns of X that the rows of the batch fill. Where all ranks hold all parameters, it can be
summed as keys and values whatever is done with the sum; whether the *update* may leave alone what is zero there is the optimizer's
matter. Where parameters lie elsewhere, or are shared, gradients are sparse only if updates are.
"""

from __future__ import annotations

from typing import Final

from scaleml.models.flat_model import X_IS_DENSE, FlatModel, Sparse
from scaleml.optim import SGD, AdaGrad, Optimizer, RowSteps
from scaleml.strategies import Strategy

SPARSE_BELOW: Final = {True: 1 / 32, False: 1 / 8}
"""Stored values of a batch of all ranks, as a share of the columns of X, up to which gradients are sparse: where all ranks share memory,
and elsewhere. Microseconds of processor time of a step and rank; two ranks, 2^18 columns, 17 values a row:

====  =====  =============  ======
rows  share  whole vectors  sparse
====  =====  =============  ======
64    0.004  526            373
256   0.016  538            524
1024  0.066  567            935
4096  0.26   683            2018
====  =====  =============  ======

Whole vectors went through shared memory. Two processes took less with sparse gradients still at 1024 rows (1.8 times, 1.1 to 3.1), for
whole vectors do not stay in their caches: ``benchmarks/sparse.py``. Through sockets a whole vector takes 550 more, and the time of
the wire: 840 at 10 Gbit/s.
"""


def why_dense(
    model: FlatModel,
    strategy: Strategy,
    optimizer: Optimizer,
    steps: RowSteps | None,
    *,
    filled: float | None = None,
    workers: int = 2,
    one_memory: bool = False,
    in_parts: bool = False,
) -> str:
    """Return why gradients are whole vectors, in words; nothing where sparse ones have the same result.

    Parameters
    ----------
    filled : float or None
        About how many values the rows of a batch store, over all ranks; None where that is not known.
    workers : int
        Ranks that train: one alone sends nothing.
    one_memory : bool
        Whether these share memory, or are one.
    in_parts : bool
        Whether a gradient is computed part after part of its batch.
    """
    reason = _why_not(strategy)
    if reason:
        return reason
    if not isinstance(model, Sparse):
        return "the model has no sparse form"
    if model.why_dense():
        return model.why_dense()
    if optimizer.takes_all_rows:
        return f"{optimizer!r} has the gradient of all rows, which touch every column"
    if in_parts:
        return (
            "microbatch adds up whole vectors, and a linear model has no layers to keep in memory: leave microbatch out"
        )
    if not strategy.replicated or workers == 1:
        reason = why_dense_updates(model, strategy, optimizer, steps)
    chosen = not strategy.replicated or getattr(strategy, "sparse", None)
    if (
        not reason
        and not chosen
        and filled is not None
        and filled > SPARSE_BELOW[one_memory or workers == 1] * model.columns
    ):
        return f"a batch has {filled:,.0f} values in {model.columns:,} columns: no less work"
    return reason


def why_dense_updates(model: FlatModel, strategy: Strategy, optimizer: Optimizer, steps: RowSteps | None) -> str:
    """Return why updates are of all parameters, in words; nothing where one leaves alone, or scales alike, what no row touches."""
    if not isinstance(model, Sparse):
        return "the model has no sparse form"
    if model.l1:
        return "an L1 penalty moves every coefficient: use penalty='l2' or None"
    if steps is not None:
        return "the estimator's steps see each column from its mean, which moves all at once"
    if optimizer.groups or optimizer.no_decay:
        return "parameter groups are parts of whole vectors: leave groups and no_decay out"
    if optimizer.weight_decay:
        return "weight_decay moves every coefficient at every update: use the model's own penalty"
    momentum = getattr(optimizer, "momentum", 0.0)
    if not isinstance(optimizer, SGD | AdaGrad) or momentum:
        return f"{optimizer!r} moves every coefficient at every update: use SGD without momentum, or AdaGrad"
    if model.l2 and not strategy.shares_memory:
        if isinstance(optimizer, AdaGrad):
            return "AdaGrad's sums of squares see the penalty of every coefficient: use penalty=None, or SGD"
        if optimizer.clip_norm is not None:
            return "clip_norm sees the penalty of every coefficient: use penalty=None, or no clip_norm"
    return ""


def _why_not(strategy: Strategy) -> str:
    """Return what a strategy has against sparse gradients."""
    if not strategy.has_sparse_form:
        return f"{strategy!r} has no sparse form"
    if getattr(strategy, "sparse", None) is False:
        return "sparse=False"
    if getattr(strategy, "compression", None) is not None:
        return "a codec writes whole vectors: leave compression out"
    if getattr(strategy, "overlap", False) and strategy.replicated:
        return (
            "overlap sends a layer while the next one is computed, and a linear model is one layer: leave overlap out"
        )
    if getattr(strategy, "overlap", False):
        return "the next batch's parameters are in the answer that overlap does not wait for: leave overlap out"
    if getattr(strategy, "topology", "auto") not in ("auto", "direct"):
        return f"topology={strategy.topology!r} is of whole vectors: leave topology out"  # type: ignore[attr-defined]
    return ""


def in_words(model: FlatModel, strategy: Strategy, reason: str, of_updates: str) -> str:
    """Return what was decided, and why, where there was something to decide: for the run's settings."""
    if not strategy.has_sparse_form or not isinstance(model, Sparse) or model.why_dense() == X_IS_DENSE:
        return ""
    if reason:
        return f", dense updates ({reason})"
    return f", sparse gradients, dense updates ({of_updates})" if of_updates else ", sparse updates"
