"""Mapped runs: dense rows of several files, in their order, read where they lie: nothing is copied to be in one array."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array
from scaleml.data.piece import Arrays, Run
from scaleml.data.stream import Files, read_labels, read_weights, targets_of


@final
class MappedRuns:
    """The rows of some runs one after another: X mapped, targets and weights, which are small, in memory.

    Of 320 MB in ten files a copy costs as long as ten passes of a linear model over them gain by it.

    Parameters
    ----------
    runs : sequence of Run
        Where the rows lie, all dense; at least one.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._starts = np.cumsum([0, *(run.rows for run in runs)]).tolist()
        self.rows: int = self._starts[-1]
        self._x: list[Array] = []
        targets, weights = [], []
        files = Files()
        try:
            for run in runs:
                place = run, run.start, run.stop
                labels = read_labels(*place, files)
                targets.append(targets_of(run, labels))
                weights.append(read_weights(*place, labels, files))
                x = run.piece.map(run.start, run.stop)[0]
                assert not arrays.is_sparse(x), "CSR rows are read into memory"
                self._x.append(x)
        finally:
            files.close()
        self._y = np.concatenate(targets)
        self._weights = None if weights[0] is None else np.concatenate([mine for mine in weights if mine is not None])

    def take(self, start: int, stop: int) -> Arrays:
        """Return rows ``start:stop``: X, y and weights; views, but where they are of several files."""
        first = bisect_right(self._starts, start, hi=len(self._x)) - 1
        parts = []
        for index in range(first, len(self._x)):
            begin = self._starts[index]
            if index > first and begin >= stop:
                break
            parts.append(self._x[index][max(start - begin, 0) : stop - begin])
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return x, self._y[start:stop], None if self._weights is None else self._weights[start:stop]

    def blocks(self) -> Iterator[Arrays]:
        """Yield all rows once, file by file."""
        for start, stop in zip(self._starts, self._starts[1:], strict=False):
            yield self.take(start, stop)
