"""Whether only what a batch touches is computed, sent and updated, or whole vectors are: decided once a run."""

from __future__ import annotations

from scaleml.models import Network
from scaleml.optim import SGD, AdaGrad, Optimizer, RowSteps
from scaleml.strategies import Strategy


def why_dense(network: Network, strategy: Strategy, optimizer: Optimizer, steps: RowSteps | None) -> str:
    """Return why whole vectors are used, in words; nothing where sparse updates have the same result.

    That is so where an update leaves alone, or scales alike, what no row of the batch touches.
    """
    reason = _why_not(strategy)
    if reason:
        return reason
    if not network.signature.sparse:
        return "X is dense: pass a CSR matrix"
    if len(network.blocks) > 1:
        return "the model has hidden layers, whose parameters every row touches"
    if steps is not None:
        return "the estimator's steps see each column from its mean, which moves all at once"
    if network.l1:
        return "an L1 penalty moves every coefficient: use penalty='l2' or None"
    momentum = getattr(optimizer, "momentum", 0.0)
    if not isinstance(optimizer, SGD | AdaGrad) or momentum:
        return f"{optimizer!r} moves every coefficient at every update: use SGD without momentum, or AdaGrad"
    if network.l2 and strategy.layout(1).servers:
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


def in_words(network: Network, strategy: Strategy, reason: str) -> str:
    """Return what was decided, where there was something to decide: for the run's settings."""
    if not strategy.has_sparse_form or not network.signature.sparse:
        return ""
    return f", dense updates ({reason})" if reason else ", sparse updates"
