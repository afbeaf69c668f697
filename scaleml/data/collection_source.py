"""The source that a Dask collection is after the pass over it: rows in pieces on workers, and what their labels stand for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array
from scaleml.data.collections import Table, partitions_of
from scaleml.data.column_sizes import ColumnSizes
from scaleml.data.columns import names_of, refuse_no_weight
from scaleml.data.labels import merge_classes, places_of
from scaleml.data.partition import PassOptions, PieceSummary, RowFormat, check_summaries
from scaleml.data.piece import Run
from scaleml.data.row_dtype import Row
from scaleml.data.row_sample import HEAVIEST, RowSample
from scaleml.data.source import Task, outputs_of, task_of
from scaleml.data.stager import Pieces, Stager, Staging
from scaleml.data.tensor_collections import tensor_partitions_of

_SAMPLE: Final = 64 << 20
"""Bytes of X that a sample takes at most."""


@dataclass(frozen=True)
class CollectionSource:
    """X, y and weights of a Dask collection in files of its workers, with what one pass over them has found.

    Parameters
    ----------
    pieces : Pieces
        The files.
    options : PassOptions
        How it was made.
    is_weighted : bool
        Whether weights were given.
    classes : array or None
        As the model knows them; None where it learns numbers.
    labels : array or None
        What y holds, sorted.
    table : (k,) or (k, targets) array or None
        What each of the labels stands for: by default its number.
    factors : (k,) array, float or None
        What the weights of rows to train on are multiplied by, for each of the labels, or all alike.
    name : str
        How errors call y.
    names : tuple or None
        Of the columns of X, where it is a table.
    columns : int array or None
        Of CSR data, which columns the model is of; the others are left out.
    """

    pieces: Pieces
    options: PassOptions
    is_weighted: bool
    classes: Array | None = None
    labels: Array | None = None
    table: Array | None = None
    factors: Array | float | None = None
    name: str = "y"
    names: tuple[object, ...] | None = None
    columns: Array | None = None

    def coded(
        self,
        classes: Array | None,
        labels: Array | None,
        table: Array | None = None,
        factors: Array | float | None = None,
    ) -> CollectionSource:
        """Return the same rows with what their labels and weights stand for; see the parameters."""
        return replace(self, classes=classes, labels=labels, table=table, factors=factors)

    def only(self, columns: Array) -> CollectionSource:
        """Return the same rows, which are CSR, with some of their columns, numbered anew."""
        return replace(self, columns=columns)

    # What is known of all rows.

    @property
    def all_rows(self) -> int:
        """Rows, held-out ones too."""
        return sum(summary.rows for summary in self.pieces.summaries)

    @property
    def held(self) -> int:
        """Rows that are held out."""
        return sum(summary.held for summary in self.pieces.summaries)

    @property
    def rows(self) -> int:
        """Rows to train on."""
        return self.all_rows - self.held

    @property
    def features(self) -> int:
        """Columns of X."""
        return self._full[0].features if self.columns is None else len(self.columns)

    @property
    def is_sparse(self) -> bool:
        """Whether X is CSR."""
        return self._full[0].is_sparse

    @property
    def dtype(self) -> str:
        """Of X."""
        return self.options.dtype

    @property
    def targets(self) -> int:
        """Columns of y; 0 for a y of one dimension."""
        return self._full[0].targets

    @property
    def task(self) -> Task:
        """``"binary"``, ``"multiclass"`` or ``"regression"``."""
        return task_of(self.classes)

    @property
    def n_outputs(self) -> int:
        """Columns of a model's scores."""
        targets = self.targets if self.table is None else 0 if self.table.ndim == 1 else int(self.table.shape[1])
        return outputs_of(self.classes, targets)

    @property
    def row(self) -> Row | None:
        """Of one row of X that may have any shape; None for tables."""
        return self._full[0].row

    @property
    def target(self) -> Row | None:
        """Of one row of y that may have any shape; None for tables and labels."""
        return self._full[0].target

    @property
    def mean_weight(self) -> float:
        """Mean weight of the rows as they were given."""
        return float(self.tally(self.labels)[1].sum() / self.all_rows)

    @cached_property
    def found_labels(self) -> Array | None:
        """The labels of all partitions, sorted, at least two; None for regression."""
        parts = [summary.classes for summary in self._full if summary.classes is not None]
        return merge_classes(parts) if self.options.classifier and parts else None

    @cached_property
    def filled(self) -> Array | None:
        """The columns of CSR data that hold anything, sorted; None where that is most of them, and for dense data."""
        found = [summary.filled for summary in self._full if summary.filled is not None]
        if len(found) < len(self._full):
            return None
        used = np.unique(np.concatenate(found))
        return used if 2 * len(used) < self._full[0].features else None

    @property
    def sizes(self) -> ColumnSizes | None:
        """Of the columns of dense X."""
        return ColumnSizes.together([summary.sizes for summary in self._full])

    @property
    def brightest(self) -> int:
        """The largest number in what may be images, of some rows; see `Source`."""
        return max(summary.brightest for summary in self._full)

    def tally(self, classes: Array | None, name: str = "y", *, held_out: bool = False) -> tuple[Array, Array]:
        """Return rows and sums of weights, of each class, or in all (``classes`` None); of all rows, or of those held out."""
        size = 1 if classes is None else len(classes)
        counts, mass = np.zeros(size), np.zeros(size)
        for summary in self._full:
            rows, weights = (summary.held_counts, summary.held_mass) if held_out else (summary.counts, summary.mass)
            if classes is None:
                counts += rows
                mass += weights
                continue
            assert summary.classes is not None
            places = places_of(summary.classes, classes, name)
            counts[places] += rows
            mass[places] += weights
        return counts, mass

    def refuse_no_weight_on_a_side(self) -> None:
        """Raise ValueError where the rows to train on, or those held out, all weigh nothing."""
        held = sum(float(summary.held_mass.sum()) for summary in self._full)
        for there, rows, what in (
            (sum(float(summary.mass.sum()) for summary in self._full) > held, self.rows, "to train on"),
            (held > 0 or not self.held, self.held, "held out"),
        ):
            refuse_no_weight(there, f"all {rows} rows {what}")

    @property
    def _full(self) -> list[PieceSummary]:
        return [summary for summary in self.pieces.summaries if summary.rows]

    # Rows.

    def runs(self, *, held_out: bool) -> list[Run]:
        """Return the rows to train on, or those that are held out: a run of each piece."""
        return [
            Run(summary.piece, 0, summary.held, table, None, self.columns)
            if held_out
            else Run(summary.piece, summary.held, summary.rows, table, factors, self.columns)
            for summary, (table, factors) in zip(self._full, self._codings, strict=True)
            if summary.piece is not None
        ]

    def sample(self, count: int) -> RowSample:
        """Return about ``count`` of the rows to train on, of all partitions, and the heaviest, fetched from the workers."""
        runs = self.runs(held_out=False)
        nbytes = sum(run.piece.row_nbytes * run.piece.rows for run in runs)
        row_nbytes = max(1, nbytes // self.all_rows)
        share = min(1.0, min(count, max(64, _SAMPLE // row_nbytes)) / self.rows)
        wanted = [replace(run, stop=run.start + taken) for run in runs if (taken := int(np.ceil(run.rows * share))) > 0]
        spread = sum(run.rows for run in wanted)
        if self.is_weighted:
            each = max(1, HEAVIEST // len(runs))
            for run, summary in zip(runs, self._full, strict=True):
                places = [] if summary.heaviest is None else summary.heaviest[-each:].tolist()
                wanted += [
                    replace(run, start=place, stop=place + 1) for place in places if run.start <= place < run.stop
                ]
        x, y, weights = zip(*self.pieces.fetch(wanted), strict=True)
        found = RowSample(arrays.concatenate_rows(list(x)), np.concatenate(y))
        if weights[0] is None:
            return found
        mass = np.concatenate(weights).astype(np.float64)
        counts = np.ones(len(mass))
        counts[:spread] = self.rows / max(1, spread)
        there = np.flatnonzero(mass)
        return RowSample(found.x[there], found.y[there], mass[there], counts[there])

    @cached_property
    def _codings(self) -> list[tuple[Array | None, Array | None]]:
        """What the labels of each piece stand for, and the factors of its weights."""
        if self.labels is None:
            return [(None, self._cast(self.factors))] * len(self._full)
        table = np.arange(len(self.labels)) if self.table is None else self.table
        table = table.astype(np.int32 if self.task == "multiclass" else self.dtype)
        codings: list[tuple[Array | None, Array | None]] = []
        for summary in self._full:
            assert summary.classes is not None
            places = places_of(summary.classes, self.labels, self.name)
            factors = self.factors[places] if isinstance(self.factors, np.ndarray) else self.factors
            codings.append((table[places], self._cast(factors)))
        return codings

    def _cast(self, factors: Array | float | None) -> Array | None:
        return None if factors is None else np.asarray(factors, self.dtype)


def collection_sources(
    tables: Sequence[Table], form: RowFormat, stager: Stager, *, fraction: float = 0.0, indicators: bool = False
) -> list[CollectionSource]:
    """Check what is known of Dask collections, and have them brought into files in one pass over their partitions.

    Parameters
    ----------
    tables : sequence of Table
        X, y and weights to train on, and others, to evaluate on: what they are made of is made once.
    form : RowFormat
        How the rows are to lie in files.
    stager : Stager
        What brings them there.
    fraction : float
        Of the rows of the first, to hold out.
    indicators : bool
        Whether y has a column of 0 and 1 for each label.

    Raises
    ------
    ValueError, TypeError
        For data that cannot be trained on, with the remedy.
    """
    stagings: list[Staging] = []
    found = tensor_partitions_of(*tables) if form.any_shape else partitions_of(*tables)
    for table, parts in zip(tables, found, strict=True):
        held = 0.0 if stagings else fraction
        names = indicators, parts.columns, parts.targets
        options = PassOptions(
            secrets.token_hex(8), form.dtype, form.classifier, form.seed, held, table.name, *names, form.any_shape
        )
        stagings.append(Staging(table.X, parts, options))
    sources = []
    for table, staging, pieces in zip(tables, stagings, stager.stage(stagings), strict=True):
        check_summaries(pieces.summaries, table.name)
        weighted = table.sample_weight is not None
        sources.append(CollectionSource(pieces, staging.options, is_weighted=weighted, names=names_of(table.X)))
    return sources
