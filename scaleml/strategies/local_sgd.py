"""Local SGD: ranks step alone and average their parameters every so often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scaleml.strategies.base import Context, Strategy


@dataclass(frozen=True, repr=False)
class LocalSGD(Strategy):
    """Local SGD with periodic averaging: ``period`` steps alone, then the mean of all ranks' parameters.

    Each of N ranks steps on ``batch_size / N`` rows; the optimizer's own state (momentum) stays local.

    ::

        w_r <- w_r - rate * mean gradient over rank r's part of the batch
        every ``period`` steps:  w_r <- (w_0 + w_1 + ... + w_(n-1)) / n

    Parameters
    ----------
    period : int
        Steps between two averages. ``period=1`` averages after each step.

    Raises
    ------
    ValueError
        If ``period`` is not a positive integer.

    Examples
    --------
    >>> from scaleml import LocalSGD
    >>> [step for step in range(9) if LocalSGD(3).commits(step)]
    [2, 5, 8]

    References
    ----------
    Stich, Local SGD converges fast and communicates little, ICLR 2019, arXiv:1805.09767.
    """

    replicated: ClassVar[bool] = False
    period: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.period, int) or self.period < 1:
            raise ValueError(
                f"period={self.period!r}: must be a positive integer, the number of steps between two averages"
            )

    def commits(self, step: int) -> bool:
        """Whether step ``step`` ends with an average."""
        return (step + 1) % self.period == 0

    def step(self, w: Any, state: dict[str, Any], ctx: Context) -> None:
        """Take one step, in place."""
        g = ctx.gradient(w)
        ctx.optimizer.apply(w, g, state)
        if self.commits(ctx.step) or ctx.is_last_step:
            ctx.group.allreduce(w)
            w /= ctx.group.size
