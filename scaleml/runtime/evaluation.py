"""Held-out evaluation: all ranks take part, outside the training clock."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter as clock
from typing import Any

import numpy as np

from scaleml.data.stream import Stream
from scaleml.runtime.plan import Plan
from scaleml.telemetry.recorder import Recorder


class Evaluation:
    """Evaluates parameters on data that is not trained on, each rank its part of it.

    The training clock stands still meanwhile, and nothing of it shows in the ledger. It also keeps the parameters
    it saw last, to fall back on when training runs into infinity.

    Parameters
    ----------
    held_out : tuple, Stream or None
        This rank's part: X, y, weights.
    group : Group
        The ranks that take part.

    Attributes
    ----------
    due_at : float
        Rows consumed at which the next evaluation is due.
    done : int
        Evaluations so far, after the one before the first step.
    """

    def __init__(self, plan: Plan, group: Any, held_out: Any, recorder: Recorder) -> None:
        self._network = plan.network
        self._group = group
        self._held_out = held_out
        self._recorder = recorder
        self._every = plan.evaluate_every
        self.due_at: float = self._every or inf
        self.done = -1
        self.kept: Any = None
        self.last: tuple[float, float] | None = None
        """Loss and score of the last evaluation, on all ranks; None without held-out data."""

    def passed(self, rows: int) -> None:
        """Note that the run, with ``rows`` rows consumed, has been evaluated."""
        self.due_at = (rows // self._every + 1) * self._every

    def aside(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns; neither the clock nor the ledger notices it."""
        begin = clock()
        meter = self._group.meter
        saved = state_of(meter)
        result = call()
        restore(meter, saved)
        self._recorder.exclude(clock() - begin)
        return result

    def at(self, w: Any, step: int) -> None:
        """Evaluate ``w``, which is the same on all ranks."""
        begin = clock()
        self.done += 1
        self.kept = np.array(w)
        if self._held_out is not None:
            meter = self._group.meter
            saved = state_of(meter)
            recorder = self._recorder
            mine = np.array([recorder.clock(begin), recorder.samples], np.float64)
            clocks = self._group.allgather(mine)
            totals = self._statistics(w)
            self._group.allreduce(totals)
            loss, score = self.last = self._network.summarise(totals)
            if self._group.rank == 0:
                # Where ranks keep their own pace, the slowest clock tells the time: never too early.
                recorder.evaluated(float(clocks[:, 0].max()), float(clocks[:, 1].sum()), step, loss, score)
            restore(meter, saved)
        self._recorder.exclude(clock() - begin)

    def _statistics(self, w: Any) -> Any:
        if isinstance(self._held_out, Stream):
            return sum(self._network.statistics(w, *block) for block in self._held_out.blocks())
        return self._network.statistics(w, *self._held_out)


def of_rank_0(w: Any, workers: Any) -> Any:
    """Return rank 0's parameters, where each rank has its own; collective."""
    theirs = np.array(w)
    workers.broadcast(theirs)
    return theirs


def state_of(meter: Any) -> tuple[float, float, int, int, list[float]]:
    """Return what a meter shows."""
    return meter.wait, meter.comm, meter.bytes_sent, meter.bytes_received, list(meter.waited)


def restore(meter: Any, saved: tuple[float, float, int, int, list[float]]) -> None:
    """Set a meter back to what it showed."""
    meter.wait, meter.comm, meter.bytes_sent, meter.bytes_received, meter.waited[:] = saved
