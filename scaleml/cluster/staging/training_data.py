"""Training data: X and y of one or several runs, checked once, brought to the workers once, whatever kind they are of."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from distributed import Client

from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.embedded import find_client
from scaleml.cluster.placement import candidates
from scaleml.cluster.staging.client_file import ClientFile
from scaleml.cluster.staging.memory import check_partitions
from scaleml.cluster.staging.placed_data import PlacedData, PlacedRows
from scaleml.cluster.staging.stage_pass import StagePass, homes_of
from scaleml.cluster.staging.worker_files import WorkerFiles
from scaleml.data.collection_source import CollectionSource
from scaleml.data.collections import is_collection, partitions_of
from scaleml.data.partition import PassOptions, check_summaries
from scaleml.data.source import ArraySource, Source, array_source
from scaleml.data.split import hold_out
from scaleml.models import Model, Signature


def stage_collection(
    X: object,
    y: object,
    sample_weight: object,
    client: Client | None,
    workers: int | Sequence[str] | None,
    dtype: str,
    *,
    classifier: bool,
    seed: int,
    fraction: float = 0.0,
    name: str = "X",
    indicators: bool = False,
) -> CollectionSource:
    """Bring a Dask collection into files of the workers in one pass over its partitions.

    Parameters
    ----------
    X, y, sample_weight
        As ``train`` takes them; X is a Dask collection.
    client, workers
        As ``train`` takes them: the cluster, and where on it the data may lie.
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

    Raises
    ------
    ValueError, TypeError
        For data that cannot be trained on, with the remedy.
    """
    partitions = partitions_of(X, y, sample_weight, name)
    found, own = find_client(client, workers)
    info = calls.identity(found, 10.0)
    chosen = candidates(info, workers, own)
    check_partitions(info, chosen, partitions, name)
    options = PassOptions(secrets.token_hex(8), dtype, classifier, seed, fraction, name, indicators)
    somewhere = None if len(chosen) == len(info) else chosen
    homes = homes_of(X, partitions, info, list(info) if somewhere is None else chosen)
    files = WorkerFiles(found, StagePass(partitions, options, somewhere, homes))
    try:
        check_summaries(files.summaries, name)
    except BaseException:
        files.close()
        raise
    return CollectionSource(files, files.summaries, options, is_weighted=sample_weight is not None)


class TrainingData:
    """X and y of several runs.

    Parameters
    ----------
    model : Model
        What is to be trained.
    X, y, sample_weight, validation
        As ``train`` takes them; or X, and the validation data, as an ``ArraySource`` that was checked already; or X as
        a ``CollectionSource``, with the rows that are to be held out, if any.
    seed : int
        Decides the order of the rows.
    client, workers
        As ``train`` takes them; a cluster is looked for only if a Dask collection needs one.

    Attributes
    ----------
    signature : Signature
        What the model must know of the data.
    network : Network
        The model built for it.
    classes : array or None
        The labels.
    rows : int
        Rows to train on.
    placed : PlacedData
        Where the data is.
    placing_seconds : float
        How long it took to bring it there.
    """

    classes: Array | None

    def __init__(
        self,
        model: Model,
        X: object,
        y: object,
        sample_weight: object,
        validation: object,
        seed: int,
        client: Client | None = None,
        workers: int | Sequence[str] | None = None,
    ) -> None:
        began = WALL.now()
        self._model, self._seed, self._cluster = model, seed, (client, workers)
        self._dtype = model.dtype
        self._nonce = os.urandom(16)
        self._parts: list[PlacedRows] = []
        _check_validation(validation)
        try:
            if isinstance(X, CollectionSource):
                self._place_staged(X)
            elif is_collection(X):
                self._place_collection(X, y, sample_weight, validation)
            else:
                self._place_arrays(X, y, sample_weight, validation)
        except BaseException:
            for part in self._parts:
                part.files.close()
            raise
        self.rows = self._parts[0].rows
        self.placed = PlacedData(self._parts[0], self._parts[1] if len(self._parts) > 1 else None)
        self.placing_seconds = WALL.now() - began

    def close(self) -> None:
        """Remove what was brought to the workers."""
        self.placed.close()

    # NumPy, SciPy, pandas.

    def _place_arrays(self, X: object, y: object, sample_weight: object, validation: Any) -> None:
        source = X if isinstance(X, ArraySource) else self._source(X, y, sample_weight)
        self._sign(source)
        if not isinstance(validation, float):
            checked = self._checked(validation)
            self._place(source, hold_out(source.rows, 0.0, self._seed)[0], "X")
            self._place_held_out(checked)
            return
        rows, held = hold_out(source.rows, validation, self._seed)
        _refuse_empty_side(validation, len(rows), len(held))
        self._place(source, rows, "X")
        self._place(source, held, "the validation X")

    def _place(self, source: ArraySource, order: Array, name: str) -> None:
        file = ClientFile(source, order, self._dtype, name, self._nonce)
        self._parts.append(PlacedRows(file, file.runs))

    def _source(self, X: object, y: object, sample_weight: object = None, **settings: Any) -> ArraySource:
        """Check arrays; what is a Dask collection of one value a row, where X is here, is fetched: y and weights together."""
        columns = {name: values for name, values in (("y", y), ("w", sample_weight)) if is_collection(values)}
        if columns:
            found = find_client(*self._cluster)[0].compute(list(columns.values()), sync=True)
            columns = dict(zip(columns, found, strict=True))
        y, sample_weight = columns.get("y", y), columns.get("w", sample_weight)
        return array_source(X, y, sample_weight, classifier=self._model.is_classifier, **settings)

    # Dask.

    def _place_collection(self, X: object, y: object, sample_weight: object, validation: Any) -> None:
        fraction = validation if isinstance(validation, float) else 0.0
        source = self._stage(X, y, sample_weight, fraction, "X")
        try:
            labels = source.found_labels
            self._place_staged(source.coded(labels, labels))
        except BaseException:
            source.pieces.close()
            raise
        if fraction:
            _refuse_empty_side(fraction, *(part.rows for part in self._parts))
        else:
            self._place_held_out(self._checked(validation))

    def _place_staged(self, source: CollectionSource) -> None:
        """Take the training rows, and those that were held out, if any."""
        self._sign(source)
        assert isinstance(source.pieces, WorkerFiles)
        self._parts.append(PlacedRows(source.pieces, source.runs(held_out=False), source.options.seed))
        if source.options.fraction:
            self._parts.append(PlacedRows(source.pieces, source.runs(held_out=True)))

    def _stage(self, X: object, y: object, sample_weight: object, fraction: float, name: str) -> CollectionSource:
        return stage_collection(
            *(X, y, sample_weight, *self._cluster, self._dtype),
            classifier=self._model.is_classifier,
            seed=self._seed,
            fraction=fraction,
            name=name,
        )

    # Both.

    def _checked(self, validation: Any) -> Any:
        """Return held-out data as it was given, or checked where its X is here."""
        if validation is None or isinstance(validation, ArraySource) or is_collection(validation[0]):
            return validation
        names = {"name": "the validation X", "label": "the validation y"}
        held = self._source(*validation, classes=self.classes, **names)
        self._compare(held)
        return held

    def _place_held_out(self, validation: Any) -> None:
        """Place held-out data that is not taken from X."""
        if isinstance(validation, ArraySource):
            self._place(validation, np.arange(validation.rows), "the validation X")
        elif validation is not None:
            self._stage_held_out(*validation)

    def _stage_held_out(self, X: object, y: object, sample_weight: object = None) -> None:
        source = self._stage(X, y, sample_weight, 0.0, "the validation X")
        try:
            held = replace(source.coded(self.classes, self.classes), name="the validation y")
            self._compare(held)
            assert isinstance(held.pieces, WorkerFiles)
            self._parts.append(PlacedRows(held.pieces, held.runs(held_out=False)))
        except BaseException:
            source.pieces.close()
            raise

    def _sign(self, source: Source) -> None:
        """Build the network for the data; raise where its loss does not fit them."""
        self.classes = source.classes
        self.signature = Signature(source.features, source.n_outputs, source.task, self._dtype, source.is_sparse)
        self.network = self._model.build(self.signature)

    def _compare(self, held: Source) -> None:
        signature = self.signature
        if held.features != signature.n_features:
            raise ValueError(
                f"the validation X has {held.features} columns, X has {signature.n_features}: they must be the same features"
            )
        if held.n_outputs != signature.n_outputs:
            raise ValueError(
                f"the validation y has {held.n_outputs} columns, y has {signature.n_outputs}: they must be the same targets"
            )


def _refuse_empty_side(fraction: float, rows: int, held: int) -> None:
    if not rows or not held:
        raise ValueError(
            f"validation={fraction} of {rows + held} rows leaves none on one side: pass more data, or (X, y)"
        )


def _check_validation(validation: object) -> None:
    if validation is None or isinstance(validation, ArraySource):
        return
    if isinstance(validation, float):
        if not 0 < validation < 1:
            raise ValueError(
                f"validation={validation}: as a number it is the fraction of the rows to hold out, between 0 and 1"
            )
        return
    if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
        if isinstance(validation, tuple | list):
            what = f"a {type(validation).__name__} of {len(validation)}"
        else:
            what = repr(validation) if np.isscalar(validation) else type(validation).__name__
        raise TypeError(
            f"validation={what}: must be (X, y), (X, y, sample_weight), or the fraction of the rows to hold out, such as 0.2"
        )
