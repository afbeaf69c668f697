"""Local SGD: ranks step alone and average their parameters every so often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.checks import check_integer
from scaleml.compression import Codec
from scaleml.compression.base import check_codec
from scaleml.compression.error_feedback import forget
from scaleml.optim import Optimizer, Schedule, clip
from scaleml.strategies.base import Strategy
from scaleml.strategies.context import Context

ANCHOR = "outer.anchor"
"""Where all ranks stood after the last average."""
UPDATES = "outer.updates"


@dataclass(frozen=True, repr=False)
class LocalSGD(Strategy):
    """Local SGD with periodic averaging: ``period`` steps alone, then the mean of all ranks' parameters.

    Each of N ranks steps on ``batch_size / N`` rows; the optimizer's own state (momentum) stays local.

    ::

        for the first ``start_after`` steps:  as AllReduce                       (post-local SGD)
        w_r <- w_r - rate * mean gradient over rank r's part of the batch
        every ``period`` steps:  m <- (w_0 + w_1 + ... + w_(n-1)) / n
            without ``outer``:   w_r <- m
            with it:             w_r <- a <- outer(a, gradient = a - m)          (DiLoCo; a: the last such w)

    Parameters
    ----------
    period : int or None
        Steps between two averages. ``period=1`` averages after each step. None averages once, at the end
        (one-shot averaging).
    outer : Optimizer, optional
        Takes what the ranks moved by together for a gradient: ``SGD(0.7, momentum=0.9, nesterov=True)`` is DiLoCo's, and
        ``SGD(1.0)`` is plain averaging. Its state is the same on every rank. A new learning rate in mid-run is the
        inner optimizer's.
    start_after : int
        Steps of synchronous SGD before the first local one.
    compression : Codec, optional
        How what each rank moved by since the last average travels, one of `scaleml.compression`: ``m <- a - (sum of all
        a - w_r) / n``. What an average loses is sent with the next.

    Raises
    ------
    ValueError
        If ``period`` is not a positive integer or None, ``start_after`` is negative, or ``outer`` is no optimizer,
        ``compression`` no codec, or one of them has no period.

    Notes
    -----
    One-shot averaging is right for a convex objective: all ranks come near the one optimum, and their mean is nearer
    than each. On an MLP it is not. Hidden units can be permuted without a change of the function, and there are many optima:
    the longer ranks go apart the more they go to different ones, and what lies between two optima is none. From one
    start and for a few epochs the mean still is of use (on the digits, three ranks, 16 epochs: a held-out loss of 0.153 instead of 0.131);
    in the end it may be as bad as the start. So local methods average early and often.

    DiLoCo's outer optimizer moves on by 0.7 / (1 - 0.9) = 7 times what the ranks moved by: where plain averaging does well at
    a learning rate, give it a smaller one.

    Without averages in between, ranks come together at the end of each epoch alone: there, commands take effect. Held-out
    evaluations look at the mean of all ranks, which go on from where they are.

    Examples
    --------
    >>> from scaleml import LocalSGD, SGD
    >>> [step for step in range(9) if LocalSGD(3).commits(step)]
    [2, 5, 8]
    >>> [step for step in range(9) if LocalSGD(3, start_after=2).commits(step)]
    [0, 1, 4, 7]
    >>> LocalSGD(100, outer=SGD(0.7, momentum=0.9, nesterov=True)).outer.momentum
    0.9

    References
    ----------
    Stich, Local SGD converges fast and communicates little, ICLR 2019, arXiv:1805.09767.
    Lin et al., Don't use large mini-batches, use local SGD, ICLR 2020, arXiv:1808.07217 (``start_after``).
    Basu et al., Qsparse-local-SGD, NeurIPS 2019, arXiv:1906.02367 (``compression``).
    Douillard et al., DiLoCo: distributed low-communication training of language models, 2023, arXiv:2311.08105.
    Zinkevich et al., Parallelized stochastic gradient descent, NIPS 2010 (``period=None``).
    """

    replicated: ClassVar[bool] = False
    period: int | None = 8
    outer: Optimizer | None = None
    start_after: int = 0
    compression: Codec | None = None

    def __post_init__(self) -> None:
        check_codec(self.compression)
        if self.compression is not None and self.period is None:
            raise ValueError(
                f"compression={self.compression!r} with period=None: what a codec loses is sent with the next average, and one "
                "average has no next; give a period, or leave compression out"
            )
        if self.period is not None:
            rule = "a positive integer, the number of steps between two averages, or None to average once, at the end"
            object.__setattr__(self, "period", check_integer("period", self.period, 1, rule=rule))
        if self.outer is not None and not isinstance(self.outer, Optimizer):
            raise ValueError(
                f"outer={self.outer!r}: must be an optimizer such as SGD(0.7, momentum=0.9, nesterov=True), or None"
            )
        if self.outer is not None:
            self._check_outer(self.outer)
        rule = "a number of steps, 0 or more, to take together first"
        object.__setattr__(self, "start_after", check_integer("start_after", self.start_after, rule=rule))

    def _check_outer(self, outer: Optimizer) -> None:
        """Raise ValueError for an outer optimizer that would need to know more than averages say."""
        what = ""
        if self.period is None:
            what = "one average has no use for it"
        elif outer.schedule == "adaptive":
            what = "schedule='adaptive' needs losses"
        elif isinstance(outer.schedule, Schedule):
            what = "a schedule that goes with the run is the inner optimizer's"
        elif outer.groups or outer.no_decay:
            what = "parameter groups are the inner optimizer's"
        if what:
            raise ValueError(f"outer={outer!r} with period={self.period!r}: {what}; give a period, or another outer")

    def commits(self, step: int) -> bool:
        """Whether step ``step`` ends with the same parameters on all ranks."""
        alone = step + 1 - self.start_after
        return alone <= 0 or (self.period is not None and alone % self.period == 0)

    def sums_gradients(self, step: int) -> bool:
        """As long as steps are taken together."""
        return step < self.start_after

    def is_boundary(self, step: int, ends_epoch: bool) -> bool:
        """Whether step ``step`` ends with an average, or without any, an epoch."""
        return self.commits(step) or (self.period is None and ends_epoch)

    def command_step(self, step: int, epoch_end: int, size: int) -> int:
        """Return the next step with an average; without any, the epoch's last."""
        return (
            epoch_end if self.period is None and not self.commits(step) else super().command_step(step, epoch_end, size)
        )

    def begin(self, w: Array, state: dict[str, Array]) -> None:
        """Set out from ``w``, the same on all ranks."""
        if self.outer is not None or self.compression is not None:
            state[ANCHOR] = w.copy()
        if self.outer is not None:
            state[UPDATES] = np.zeros(1)
            state.update({f"outer.{name}": slot for name, slot in self.outer.init(len(w), w.dtype, w).items()})

    def end(self, state: dict[str, Array]) -> None:
        """Forget the outer optimizer's state, and what a codec lost."""
        forget(state)
        for name in [name for name in state if name.startswith("outer.")]:
            del state[name]

    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Take one step, in place."""
        g, step = ctx.gradient(w), ctx.step
        if step < self.start_after:
            ctx.group.allreduce(g)
            g /= ctx.group.size  # with its tail: each rank counts its share of the rows, as in local steps
        ctx.optimizer.apply(w, g, state)
        if step < self.start_after:
            if ANCHOR in state and step == self.start_after - 1:
                state[ANCHOR][:] = w
        elif self.commits(step) or ctx.is_last_step:
            self._average(w, state, ctx)
            if self.outer is not None:
                self._step_outer(w, state)
            elif self.compression is not None:
                state[ANCHOR][:] = w
        elif ctx.ends_epoch and self.period is None:
            ctx.group.barrier()

    def _average(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Make ``w`` the mean of all ranks', in place."""
        if self.compression is None:
            ctx.group.allreduce(w)
            w /= ctx.group.size
            return
        xp = namespace(w)
        moves = xp.subtract(state[ANCHOR], w, out=w)
        self.compression.allreduce(moves, 1.0, ctx.group, state, ctx.codec_context)
        moves /= ctx.group.size
        xp.subtract(state[ANCHOR], moves, out=w)

    def _step_outer(self, w: Array, state: dict[str, Array]) -> None:
        """Take the ranks' way from the anchor to their mean ``w`` for a gradient."""
        assert self.outer is not None
        anchor, t = state[ANCHOR], int(state[UPDATES][0]) + 1
        slots = {name: state[f"outer.{name}"] for name in self.outer.slots()}
        gradient = namespace(w).subtract(anchor, w, out=w)
        if self.outer.clip_norm is not None:
            clip(gradient, self.outer.clip_norm)
        self.outer.apply(anchor, gradient, slots, t)
        state[UPDATES][0] = t
        w[:] = anchor
