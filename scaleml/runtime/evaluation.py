"""Held-out evaluation: all ranks that train take part, off the training clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, TypeVar

import numpy as np

from scaleml.arrays import Array
from scaleml.data.piece import Arrays
from scaleml.data.stream import Stream
from scaleml.models.buffers import Buffers
from scaleml.runtime.held_out_score import HeldOutScore
from scaleml.runtime.model_buffers import ModelBuffers
from scaleml.runtime.plan import Plan
from scaleml.runtime.process_grid import ProcessGrid
from scaleml.runtime.rank_device import RankDevice
from scaleml.runtime.train_state import TrainState
from scaleml.telemetry.columns import Measures
from scaleml.telemetry.recorder import Recorder

Result = TypeVar("Result")
_RECENT: Final = 256  # evaluations of which the first rank may not have told before it is lost
_SAVED: Final = 10_000  # that checkpoints have, for the history of whoever goes on


class Evaluation:
    """Evaluates parameters on data that is not trained on, each rank its part of it.

    The training clock stands still meanwhile, and nothing of it shows in the ledger. It also keeps what it saw last of this rank's
    parameters, to fall back on when training runs into infinity, and, in the state, the best that it saw.

    Parameters
    ----------
    plan : Plan
        The run.
    grid : ProcessGrid
        The ranks that take part, and who holds which parameters.
    held_out : Arrays, Stream or None
        This rank's part: X, y, weights.
    state : TrainState
        Where evaluations are counted and the best parameters are kept.
    recorder : Recorder
        Where they are noted.
    device : RankDevice
        Where rows are brought.

    Attributes
    ----------
    due_at : float
        Rows consumed at which the next evaluation is due.
    done : int
        Evaluations so far, after the one before the first step.
    kept : array or None
        This rank's slice of the parameters that were evaluated last.
    buffers : ModelBuffers
        The model's, on which ranks agree before each evaluation.
    kept_buffers : Buffers or None
        Those beside ``kept``.
    recent : deque
        The newest evaluations, as the history has them, on all ranks.
    """

    def __init__(
        self,
        plan: Plan,
        grid: ProcessGrid,
        held_out: Arrays | Stream | None,
        state: TrainState,
        recorder: Recorder,
        device: RankDevice,
    ) -> None:
        self._model = plan.model
        self._grid = grid
        self._group = grid.workers
        self._now = grid.world.clock.now
        self._device = device
        self._held_out = held_out
        if isinstance(held_out, tuple):
            (self._held_out,) = device.held_out(held_out)
        self._state = state
        self._keeps_best = plan.stop is None or not plan.stop.keep_best  # such a rule keeps what it judges by
        self._score = None
        if plan.score is not None and held_out is not None:
            self._score = HeldOutScore(plan.score, plan.model, self._group, held_out, device.device)
        self._recorder = recorder
        self._every = plan.evaluate_every
        self.due_at: float = self._every or inf
        self.done = -1
        self.kept: Array | None = None
        self.buffers = ModelBuffers(plan.model, self._group, state)
        self.kept_buffers: Buffers | None = None
        self.recent: deque[Measures] = deque(maxlen=_RECENT if plan.saving is None else _SAVED)
        self.last: tuple[float, float] | None = None
        """Loss and score of the last evaluation, on all ranks; None without held-out data."""

    def passed(self, rows: int) -> None:
        """Note that the run, with ``rows`` rows consumed, has been evaluated."""
        if self._every:
            self.due_at = (rows // self._every + 1) * self._every

    def go_on(self, evaluated: Sequence[Measures]) -> None:
        """Take in the newest evaluations of those before, and tell of them: they may not have come to it."""
        self.done = max(self.done, 0)
        self.recent.extend(evaluated)
        for one in evaluated if self._group.rank == 0 else ():
            self._recorder.evaluated(*one)

    def off_the_clock(self, call: Callable[[], Result]) -> Result:
        """Return what ``call`` returns; neither the clock nor the ledger notices it."""
        begin, meter = self._now(), self._group.meter
        reading = meter.reading()
        result = call()
        meter.set(reading)
        self._recorder.exclude(self._now() - begin)
        return result

    def at(self, w: Array, step: int) -> None:
        """Evaluate ``w``, which is what this rank holds of parameters that are the same on all ranks."""
        begin, meter = self._now(), self._group.meter
        self.done += 1
        reading = meter.reading()
        self.buffers.agree()
        meter.set(reading)
        self.kept, self.kept_buffers = w.copy(), self.buffers.now()
        if self._held_out is not None:
            recorder = self._recorder
            mine = np.array([recorder.clock(begin), recorder.samples], np.float64)
            clocks = self._group.allgather(mine)
            whole = self._grid.partition.gather(w, self._group)
            totals = self._statistics(whole)
            self._group.allreduce(totals)
            loss, score = self._model.summarise(totals)
            if self._score is not None:
                score = self._score.of(whole)
            self.last = loss, score
            # Where ranks keep their own pace, the slowest clock tells the time: never too early.
            gone = sum(self._state.counted[self._group.size :])  # rows of ranks that there no longer are
            self.recent.append((float(clocks[:, 0].max()), float(clocks[:, 1].sum()) + gone, float(step), loss, score))
            if self._group.rank == 0:
                recorder.evaluated(*self.recent[-1])
            meter.set(reading)
            state = self._state
            if self._keeps_best and state.best.is_beaten_by(loss):
                # No copy: nobody writes to what was kept.
                state.best.keep(loss, self.kept, state.evaluations, self.kept_buffers)
            state.evaluations += 1
        self._recorder.exclude(self._now() - begin)

    def _statistics(self, w: Array) -> Array:
        w, parts = self._device.device.put(w), []
        for block in self._device.held_out(self._held_out):
            self._group.check()  # it may take long
            parts.append(self._model.statistics(w, *block))
        return np.sum(parts, axis=0) if len(parts) > 1 else parts[0]
