"""News of a run: what its history has that was not told yet, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from typing import TYPE_CHECKING, final

from scaleml.callbacks.base import Evaluation, FollowedRun
from scaleml.telemetry.columns import AT, COLUMNS, EVALUATION
from scaleml.telemetry.history import Change

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scaleml.callbacks.base import Rows

_STATES = {"running": "runs again", "paused": "paused", "recovering": "recovering"}
_TIME = AT["time"]


@final
class News:
    """Reads a run again and again, each time only what is new.

    Parameters
    ----------
    run : FollowedRun
    """

    def __init__(self, run: FollowedRun) -> None:
        self._run = run
        self._cursor = self._evaluations = self._changes = 0
        self._state = "running"

    def read(self) -> Iterator[Rows | Evaluation | Change]:
        """Yield what is new. Where the run was over before the call, that is all there will ever be."""
        run, history = self._run, self._run.history
        state = str(run.state)
        rows, self._cursor = history.since(self._cursor)
        table = history.evaluations
        columns = [table[name][self._evaluations :].tolist() for name in EVALUATION]
        evaluations = [Evaluation(*values) for values in zip(*columns, strict=True)]
        self._evaluations += len(evaluations)
        changes = history.changes[self._changes :]
        self._changes += len(changes)
        if state in _STATES and state != self._state:
            self._state = state
            changes.append(Change(float(run.train_seconds or 0.0), _STATES[state], kind="state"))
        return in_order(rows, evaluations, changes)


def in_order(
    rows: NDArray[np.float64], evaluations: Sequence[Evaluation], changes: Sequence[Change]
) -> Iterator[Rows | Evaluation | Change]:
    """Yield evaluations and changes by the training clock, each after the rows up to its time; each kind stays in its order.

    Parameters
    ----------
    rows : (n, 20) float array
        In the order of `COLUMNS`.
    """
    events: Iterator[Evaluation | Change] = merge(changes, evaluations, key=lambda event: event.time)
    for event in events:
        is_before = rows[:, _TIME] <= event.time
        if is_before.any():
            yield _by_column(rows[is_before])
            rows = rows[~is_before]
        yield event
    if len(rows):
        yield _by_column(rows)


def _by_column(rows: NDArray[np.float64]) -> Rows:
    return {name: rows[:, i] for i, name in enumerate(COLUMNS)}
