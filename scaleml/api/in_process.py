"""In-process training: the same loop as on a worker, with a group of one rank; no cluster, no file."""

from __future__ import annotations

from functools import partial
from typing import Final, final

import numpy as np

from scaleml import arrays
from scaleml.api.in_process_run import InProcessRun, followed
from scaleml.api.watchers import Watchers, tell_of_newest
from scaleml.arrays import Array, Matrix
from scaleml.comm import inprocess
from scaleml.data.batches import Batches, Schedule
from scaleml.data.piece import Arrays
from scaleml.runtime.commands import CommandQueue
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.plan import Plan
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.telemetry.recorder import Recorder

_IN_ORDER: Final = 1 << 26
"""Bytes of dense data above which a shuffled copy is made once: gathering rows from all over memory would cost more."""


@final
class Shuffled(Batches):
    """All batches of data that lies in this process, in a new order each epoch.

    Parameters
    ----------
    data : Arrays
        X, y, weights.
    random : RandomState
        Decides the orders, as ``sklearn.utils.shuffle`` would.
    """

    def __init__(self, data: Arrays, random: np.random.RandomState) -> None:
        self._rows = int(data[1].shape[0])
        super().__init__(Schedule([self._rows]), [0], [data])
        self._data = data
        self._random = random
        self._order = np.arange(self._rows)
        self._dealt = 1

    def take(self, consumed: int, count: int) -> tuple[Matrix, Array, Array | None, int]:
        """Return the batch ``[consumed, consumed + count)`` of the epoch's order; see `Batches.take`."""
        if consumed == 0 and self._dealt:
            shuffled = np.arange(self._rows)
            self._random.shuffle(shuffled)
            self._order = self._order[shuffled]
        self._dealt = consumed
        picked = self._order[consumed : consumed + count]
        x, y, weights = self._data
        return x[picked], y[picked], None if weights is None else weights[picked], len(picked)

    def random_state(self) -> dict[str, Array]:
        """Return the order of this epoch, and the stream that decides those of the next ones."""
        _, keys, position, has_gauss, cached = self._random.get_state(legacy=True)
        place = np.array([position, has_gauss, cached, self._dealt], np.float64)
        return {"order": np.array(self._order), "keys": np.array(keys), "place": place}

    def set_random_state(self, state: dict[str, Array]) -> None:
        """Go back to what `random_state` returned."""
        position, has_gauss, cached, dealt = state["place"].tolist()
        self._random.set_state(("MT19937", state["keys"], int(position), int(has_gauss), cached))
        self._order, self._dealt = state["order"], int(dealt)


def _tell_nobody(kind: str, **facts: object) -> None:
    """There is no supervisor here."""


def batches_of(data: Arrays, random: np.random.RandomState, shuffle: bool, *, anew: bool = False) -> Batches:
    """Return the batches of data in memory: reshuffled each epoch while it is small, or if ``anew``, else shuffled once, or in order."""
    x, y, weights = data
    rows = int(y.shape[0])
    if not shuffle:
        return Batches(Schedule([rows]), [0], [data])
    if anew or arrays.is_sparse(x) or x.nbytes <= _IN_ORDER:
        return Shuffled(data, random)
    order = random.permutation(rows)
    copied = x[order], y[order], None if weights is None else weights[order]
    return Batches(Schedule([rows]), [0], [copied])


def train_here(plan: Plan, batches: Batches, held_out: Arrays | None, watchers: Watchers) -> Outcome:
    """Train to the end in the calling thread.

    Parameters
    ----------
    plan : Plan
        For one rank.
    batches : Batches
        All the data.
    held_out : Arrays, optional
        For the evaluations.
    watchers : Watchers
        Whom to tell of it.

    Raises
    ------
    NonFinite
        When training ran into infinity.
    """
    (group,) = inprocess.groups(1, shared_memory=False)
    try:
        recorder = Recorder(0, group.meter)
        loop = TrainingLoop(plan, group, batches, held_out, CommandQueue(), _tell_nobody, recorder)
        run = InProcessRun.of(plan, recorder) if watchers.callbacks else None
        on_epoch = watchers.on_epoch if run is None else (*watchers.on_epoch, lambda epoch: run.is_told_to_stop)
        if on_epoch:
            loop.tell_epochs(partial(tell_of_newest, on_epoch))
        if run is None:
            return loop.run()
        with followed(run, watchers.callbacks):
            outcome = loop.run()
            run.params = outcome.params
        return outcome
    finally:
        group.close()
