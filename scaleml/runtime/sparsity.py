"""Whether only what a batch touches is computed, sent and updated, or whole vectors are: decided once a run."""

from __future__ import annotations

from scaleml.models.flat_model import X_IS_DENSE, FlatModel, Sparse
from scaleml.optim import SGD, AdaGrad, Optimizer, RowSteps
from scaleml.strategies import Strategy


def why_dense(model: FlatModel, strategy: Strategy, optimizer: Optimizer, steps: RowSteps | None) -> str:
    """Return why whole vectors are used, in words; nothing where sparse updates have the same result.

    That is so where an update leaves alone, or scales alike, what no row of the batch touches.
    """
    reason = _why_not(strategy)
    if reason:
        return reason
    if not isinstance(model, Sparse):
        return "the model has no sparse form"
    if model.why_dense():
        return model.why_dense()
    if steps is not None:
        return "the estimator's steps see each column from its mean, which moves all at once"
    momentum = getattr(optimizer, "momentum", 0.0)
    if not isinstance(optimizer, SGD | AdaGrad) or momentum:
        return f"{optimizer!r} moves every coefficient at every update: use SGD without momentum, or AdaGrad"
    if model.l2 and strategy.layout(1).servers:
        if isinstance(optimizer, AdaGrad):
            return "AdaGrad's sums of squares see the penalty of every coefficient: use penalty=None, or SGD"
        if optimizer.clip_norm is not None:
            return "clip_norm sees the penalty of every coefficient: use penalty=None, or no clip_norm"
    return ""


def _why_not(strategy: Strategy) -> str:
    """Return what a strategy has against sparse updates."""
    if not strategy.has_sparse_form:
        return f"{strategy!r} has no sparse form"
    if getattr(strategy, "sparse", None) is False:
        return "sparse=False"
    if getattr(strategy, "compression", None) is not None:
        return "a codec writes whole vectors: leave compression out"
    if getattr(strategy, "overlap", False):
        return "the next batch's parameters are in the answer that overlap does not wait for: leave overlap out"
    return ""


def in_words(model: FlatModel, strategy: Strategy, reason: str) -> str:
    """Return what was decided, where there was something to decide: for the run's settings."""
    if not strategy.has_sparse_form or not isinstance(model, Sparse) or model.why_dense() == X_IS_DENSE:
        return ""
    return f", dense updates ({reason})" if reason else ", sparse updates"
