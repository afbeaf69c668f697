"""A Dask collection on its way into a run: staged once, then given what its labels and weights stand for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from distributed import Client

from scaleml import arrays
from scaleml.cluster import calls
from scaleml.cluster.staging.collected import StagedPart
from scaleml.cluster.staging.memory import check_partitions
from scaleml.cluster.staging.parts import Part
from scaleml.cluster.staging.staged import Staged, homes_of
from scaleml.cluster.staging.staging import read
from scaleml.data.collections import partitions_of
from scaleml.data.labels import merge_classes, places_of
from scaleml.data.pieces import Piece, Recipe
from scaleml.data.reading import Segment

Find = Callable[[], tuple[Client, Sequence[str] | None]]
"""Returns the client, and the workers that the data may lie on, None for all."""
_SAMPLE: Final = 64 << 20
"""Bytes of X that a sample takes at most."""


class Collection:
    """X, y and weights of a Dask collection in files of its workers, with what one pass over them has found.

    Parameters
    ----------
    X, y, sample_weight
        As ``train`` takes them; X is a Dask collection.
    find : callable
        Returns the cluster.
    dtype : str
        Of X in the files.
    classifier : bool
        Whether y holds labels.
    seed : int
        Decides the order of the rows.
    fraction : float
        Of the rows, to hold out.
    name : str
        How errors call X.
    indicators : bool
        Whether y has a column of 0 and 1 for each label.

    Attributes
    ----------
    features, targets : int
        Columns of X and of y; ``targets`` is 0 for a y of one dimension.
    sparse : bool
        Whether X is CSR.
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        find: Find,
        dtype: str,
        *,
        classifier: bool,
        seed: int,
        fraction: float = 0.0,
        name: str = "X",
        indicators: bool = False,
    ) -> None:
        partitions = partitions_of(X, y, sample_weight, name)
        self.client, workers = find()
        check_partitions(self.client, workers, partitions, name)
        self.weighted = sample_weight is not None
        recipe = Recipe(secrets.token_hex(8), dtype, classifier, seed, fraction, name, indicators)
        info = calls.identity(self.client, 10.0)
        homes = homes_of(X, partitions, info, list(info) if workers is None else workers)
        self.staged = Staged(self.client, partitions, recipe, workers, homes)
        first = self._full[0]
        self.features, self.sparse, self.targets = first.features, first.sparse, first.targets

    @property
    def recipe(self) -> Recipe:
        """How it was staged."""
        return self.staged.recipe

    @property
    def _full(self) -> list[Piece]:
        return [piece for piece in self.staged.pieces if piece.rows]

    @property
    def rows(self) -> int:
        """Rows, held-out ones too."""
        return sum(piece.rows for piece in self._full)

    @cached_property
    def labels(self) -> Any:
        """The classes, sorted, at least two; None for regression."""
        return merge_classes([piece.classes for piece in self._full]) if self.recipe.classifier else None

    @cached_property
    def filled(self) -> Any:
        """The columns of CSR data that hold anything, sorted; None where that is most of them, and for dense data."""
        found = [piece.filled for piece in self._full]
        if any(filled is None for filled in found):
            return None
        used = np.unique(np.concatenate(found))
        return used if 2 * len(used) < self.features else None

    def tally(self, classes: Any, name: str = "y") -> tuple[Any, Any]:
        """Return rows and sums of weights, of each class, or in all (``classes`` None)."""
        size = 1 if classes is None else len(classes)
        counts, mass = np.zeros(size), np.zeros(size)
        for piece in self._full:
            places = slice(None) if classes is None else places_of(piece.classes, classes, name)
            counts[places] += piece.counts
            mass[places] += piece.mass
        return counts, mass

    def inputs(self, classes: Any, labels: Any, table: Any = None, factors: Any = None) -> StagedInputs:
        """Return it as a run's data; see `StagedInputs`."""
        return StagedInputs(self, classes, labels, table, factors)

    def close(self) -> None:
        """Remove the files."""
        self.staged.close()


@dataclass(frozen=True)
class StagedInputs:
    """A staged collection as a run's data: what ``Inputs`` are for arrays.

    Parameters
    ----------
    collection : Collection
    classes : array or None
        As the model knows them; None where it learns numbers.
    labels : array or None
        What y holds, sorted.
    table : (k,) or (k, targets) array or None
        What each of the labels stands for: by default its number.
    factors : (k,) array, float or None
        What the weights are multiplied by, for each of the labels, or all alike.
    name : str
        How errors call y.
    columns : int array or None
        Of CSR data, which columns the model is of; the others are left out.
    """

    collection: Collection
    classes: Any
    labels: Any
    table: Any = None
    factors: Any = None
    name: str = "y"
    columns: Any = None

    @property
    def rows(self) -> int:
        """Rows to train on."""
        return sum(piece.rows - piece.held for piece in self.collection.staged.pieces)

    @property
    def held(self) -> int:
        """Rows that are held out."""
        return sum(piece.held for piece in self.collection.staged.pieces)

    @property
    def features(self) -> int:
        """Columns of X."""
        return self.collection.features if self.columns is None else len(self.columns)

    @property
    def is_sparse(self) -> bool:
        """Whether X is CSR."""
        return self.collection.sparse

    @property
    def dtype(self) -> str:
        """Of X."""
        return self.collection.recipe.dtype

    @property
    def task(self) -> str:
        """``"binary"``, ``"multiclass"`` or ``"regression"``."""
        return "regression" if self.classes is None else "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def n_outputs(self) -> int:
        """Columns of a model's scores."""
        if self.classes is not None:
            return 1 if len(self.classes) == 2 else len(self.classes)
        if self.table is not None:
            return 1 if self.table.ndim == 1 else int(self.table.shape[1])
        return max(1, self.collection.targets)

    @property
    def mean_weight(self) -> float:
        """Mean weight of the rows as they were given."""
        return float(
            self.collection.tally(None if self.labels is None else self.labels)[1].sum() / self.collection.rows
        )

    def part(self, *, held_out: bool, ordered: bool) -> Part:
        """Return the rows to train on, or those that are held out."""
        return StagedPart(self.collection.staged, self._codings, held_out, ordered, self.columns)

    @cached_property
    def _codings(self) -> list[tuple[Any, Any]]:
        if self.labels is None:
            return [(None, self._cast(self.factors))] * len(self.collection.staged.pieces)
        table = np.arange(len(self.labels)) if self.table is None else self.table
        table = table.astype(np.int32 if self.task == "multiclass" else self.dtype)
        codings: list[tuple[Any, Any]] = []
        for piece in self.collection.staged.pieces:
            if piece.classes is None:
                codings.append((None, None))
                continue
            places = places_of(piece.classes, self.labels, self.name)
            factors = self.factors[places] if np.ndim(self.factors) else self.factors
            codings.append((table[places], self._cast(factors)))
        return codings

    def _cast(self, factors: Any) -> Any:
        return None if factors is None else np.asarray(factors, self.dtype)

    def sample(self, count: int) -> tuple[Any, Any]:
        """Return X and y of about ``count`` of the rows to train on, of all partitions, fetched from the workers."""
        pieces = zip(self.collection.staged.pieces, self._codings, strict=True)
        full = [(piece, piece.table, coding) for piece, coding in pieces if piece.table is not None]
        row_nbytes = max(1, sum(table.row_nbytes * piece.rows for piece, table, _ in full) // self.collection.rows)
        share = min(1.0, min(count, max(64, _SAMPLE // row_nbytes)) / self.rows)
        segments = [
            (piece.worker, Segment(table, piece.held, piece.held + taken, *coding, self.columns))
            for piece, table, coding in full
            if (taken := int(np.ceil((piece.rows - piece.held) * share))) > 0
        ]
        settings: dict[str, Any] = {"allow_other_workers": True, "pure": False}
        client = self.collection.client
        futures = [client.submit(read, segment, workers=[worker], **settings) for worker, segment in segments]
        found = client.gather(futures)
        return arrays.concatenate_rows([x for x, _ in found]), np.concatenate([y for _, y in found])
