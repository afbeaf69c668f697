"""History copy: a history that grows elsewhere is followed by what is new of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaleml.telemetry.columns import Measures
from scaleml.telemetry.history import Change, History
from scaleml.telemetry.recovery import Recovery


@dataclass(frozen=True)
class Seen:
    """How much of a history is known already.

    Parameters
    ----------
    rows, evaluations, epochs, changes, rewinds : int
        How many of each, from the beginning.
    """

    rows: int = 0
    evaluations: int = 0
    epochs: int = 0
    changes: int = 0
    rewinds: int = 0


@dataclass(frozen=True)
class News:
    """What is new of a history.

    Parameters
    ----------
    rewinds : tuple of int
        The steps that it went back to, before what follows.
    rows : bytes
        As `History.append_bytes` takes them.
    evaluations, epochs, changes : sequences
        In their order.
    recoveries : tuple of Recovery
        All of them.
    seen : Seen
        For the next question.
    """

    rewinds: tuple[int, ...]
    rows: bytes
    evaluations: Sequence[Measures]
    epochs: Sequence[Measures]
    changes: Sequence[Change]
    recoveries: tuple[Recovery, ...]
    seen: Seen


def news(history: History, seen: Seen) -> News:
    """Return what of a history is not known yet.

    Examples
    --------
    >>> history = History()
    >>> history.add_evaluation(time=0.0, samples=0, step=0, loss=0.69, score=0.5)
    >>> first = news(history, Seen())
    >>> len(first.evaluations), len(news(history, first.seen).evaluations)
    (1, 0)
    """
    while True:
        rewinds = history.rewinds
        rows, appended = history.since(seen.rows)
        if history.rewinds == rewinds:  # else it has just gone back
            break
    # Of what a rewind has left all is told again: who knows it does not take it twice.
    has_rewound = len(rewinds) > seen.rewinds
    evaluations, epochs = _table(history.evaluations), _table(history.epochs)
    changes = list(history.changes)
    return News(
        rewinds=rewinds[seen.rewinds :],
        rows=rows.tobytes(),
        evaluations=evaluations[0 if has_rewound else seen.evaluations :],
        epochs=epochs[0 if has_rewound else seen.epochs :],
        changes=changes[seen.changes :],
        recoveries=history.recoveries,
        seen=Seen(appended, len(evaluations), len(epochs), len(changes), len(rewinds)),
    )


def take(history: History, told: News) -> None:
    """Bring a copy up to date."""
    for step in told.rewinds:
        history.rewind(step)
    history.take(told.rows, told.evaluations, told.epochs)
    for change in told.changes:
        history.mark(*change)
    for recovery in told.recoveries:
        if recovery not in history.recoveries:
            history.note_recovery(recovery)


def _table(columns: Mapping[str, NDArray[np.float64]]) -> list[Measures]:
    return [tuple(map(float, row)) for row in zip(*columns.values(), strict=True)]
