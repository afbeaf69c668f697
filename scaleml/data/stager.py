"""The stager: brings rows into files that ranks can read. What sources ask of it; `scaleml.cluster.staging.stager` is a cluster's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scaleml.arrays import Array
from scaleml.data.dataset_source import DatasetSource
from scaleml.data.partition import PassOptions, PieceSummary
from scaleml.data.partitions import Partitions
from scaleml.data.piece import Arrays, Run
from scaleml.data.tensor_source import LocalSource


class Pieces(Protocol):
    """Files of pieces, wherever they lie.

    Attributes
    ----------
    summaries : tuple of PieceSummary
        What the pass has found in each partition.
    """

    @property
    def summaries(self) -> tuple[PieceSummary, ...]: ...

    def fetch(self, runs: Sequence[Run]) -> list[Arrays]:
        """Return X, y and weights of each of these runs."""

    def close(self) -> None:
        """Remove the files."""


@dataclass(frozen=True)
class Staging:
    """A Dask collection to be brought into files.

    Parameters
    ----------
    X : Dask array or dataframe
        As the user passed it.
    partitions : Partitions
        Of X, y and the weights.
    options : PassOptions
        How they become pieces.
    """

    X: object
    partitions: Partitions
    options: PassOptions


class Stager(Protocol):
    """Brings rows into files, and says which of them are trained on.

    What it has made is its own to remove: whoever calls it need not tidy up after an error.
    """

    def compute(self, columns: Sequence[object]) -> Sequence[object]:
        """Return Dask collections of one value a row as arrays of this process, computed together."""

    def stage(self, tables: Sequence[Staging]) -> Sequence[Pieces]:
        """Have one pass turn every partition of each X into a piece, on the worker that holds it; what they share is computed once.

        Raises
        ------
        ValueError, TypeError
            For values that cannot be trained on, by row and column.
        """

    def write(self, source: LocalSource | DatasetSource, rows: Array, dtype: str, name: str) -> None:
        """Place these rows of arrays, or items of a dataset, in this order: the first that are placed are trained on, the second held out.

        Raises
        ------
        ValueError
            For a value that is not finite, by row and column.
        """

    def keep(self, pieces: Pieces, runs: Sequence[Run], seed: int | None = None) -> None:
        """Place runs of pieces that were staged before; as ``write``. The seed decides their order, None leaves it."""
