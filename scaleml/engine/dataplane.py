"""The data of one or several runs: checked once, brought to the workers once, whatever kind it is of."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from distributed import Client

from scaleml.data.collections import is_collection, partitions_of
from scaleml.data.inputs import Inputs, check_inputs
from scaleml.data.labels import merge_classes, places_of
from scaleml.data.pieces import Recipe
from scaleml.data.split import hold_out
from scaleml.engine import calls
from scaleml.engine.collected import StagedPart
from scaleml.engine.memory import check_partitions
from scaleml.engine.parts import Part, StoredPart
from scaleml.engine.placing import PlacedData, rows_of
from scaleml.engine.staged import Staged, homes_of
from scaleml.models import Model, Signature

Find = Callable[[], tuple[Client, Sequence[str] | None]]
"""Returns the client, and the workers that the data may lie on, None for all."""


class Data:
    """X and y of several runs.

    Parameters
    ----------
    model : Model
        What is to be trained.
    X, y, sample_weight, validation
        As ``train`` takes them; or X, and the validation data, as ``Inputs`` that were checked already.
    seed : int
        Decides the order of the rows.
    find : callable
        Returns the cluster; called only if a Dask collection needs one.

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

    def __init__(
        self, model: Model, X: Any, y: Any, sample_weight: Any, validation: Any, seed: int, find: Find | None = None
    ) -> None:
        began = time.perf_counter()
        self._model, self._seed, self._find = model, seed, find
        self._dtype = model.dtype  # type: ignore[attr-defined]
        self._nonce = os.urandom(16)
        self._parts: list[Part] = []
        _check_validation(validation)
        try:
            if is_collection(X):
                self._place_collection(X, y, sample_weight, validation)
            else:
                self._place_arrays(X, self._local(y), self._local(sample_weight), validation)
        except BaseException:
            for part in self._parts:
                part.close()
            raise
        self.network = model.build(self.signature)
        self.rows = self._parts[0].rows
        self.placed = PlacedData(self._parts[0], self._parts[1] if len(self._parts) > 1 else None)
        self.placing_seconds = time.perf_counter() - began

    def close(self) -> None:
        """Remove what was brought to the workers."""
        self.placed.close()

    def _local(self, values: Any) -> Any:
        """Fetch a Dask collection of one value a row, where X is here as well."""
        if not is_collection(values):
            return values
        return self._cluster()[0].compute(values).result()

    def _cluster(self) -> tuple[Client, Sequence[str] | None]:
        if self._find is None:
            raise TypeError("X is a Dask collection: pass X.compute() if it fits into this process's memory")
        return self._find()

    # NumPy, SciPy, pandas.

    def _place_arrays(self, X: Any, y: Any, sample_weight: Any, validation: Any) -> None:
        checked = isinstance(X, Inputs)
        inputs = X if checked else check_inputs(X, y, sample_weight, classifier=self._model.is_classifier)
        self.classes = inputs.classes
        self._sign(int(inputs.x.shape[1]), hasattr(inputs.x, "indptr"), 0 if inputs.y.ndim == 1 else inputs.y.shape[1])
        held_out: Any = None
        rows, held = hold_out(inputs.rows, 0.0, self._seed)[0], None
        if isinstance(validation, float):
            rows, held = hold_out(inputs.rows, validation, self._seed)
            _refuse_empty_side(validation, len(rows), len(held))
            held_out = inputs
        elif isinstance(validation, Inputs) or (validation is not None and not is_collection(validation[0])):
            held_out = validation if isinstance(validation, Inputs) else self._checked(*validation)
            held = rows_of(held_out.rows)
        self._parts.append(StoredPart(inputs, rows, self._dtype, "X", self._nonce))
        if held_out is not None:
            self._parts.append(StoredPart(held_out, held, self._dtype, "the validation X", self._nonce))
        elif validation is not None:
            self._hold_out_collection(*validation)

    def _checked(self, X: Any, y: Any, sample_weight: Any = None) -> Inputs:
        classifier = self._model.is_classifier
        inputs = check_inputs(
            X,
            self._local(y),
            self._local(sample_weight),
            classifier=classifier,
            classes=self.classes,
            name="the validation X",
        )
        self._compare(int(inputs.x.shape[1]), hasattr(inputs.x, "indptr"), inputs.n_outputs)
        return inputs

    # Dask.

    def _place_collection(self, X: Any, y: Any, sample_weight: Any, validation: Any) -> None:
        fraction = validation if isinstance(validation, float) else 0.0
        staged = self._stage(X, y, sample_weight, fraction, "X")
        try:
            full = [piece for piece in staged.pieces if piece.rows]
            self.classes = merge_classes([p.classes for p in full]) if self._model.is_classifier else None
            self._sign(full[0].features, full[0].sparse, full[0].targets)
            train = StagedPart(staged, self._codes(staged, "y"), held_out=False, ordered=True)
        except BaseException:
            staged.close()
            raise
        self._parts.append(train)
        if fraction:
            held = StagedPart(staged, self._codes(staged, "y"), held_out=True, ordered=False)
            _refuse_empty_side(fraction, train.rows, held.rows)
            self._parts.append(held)
        elif validation is not None and not isinstance(validation, Inputs) and is_collection(validation[0]):
            self._hold_out_collection(*validation)
        elif validation is not None:
            inputs = validation if isinstance(validation, Inputs) else self._checked(*validation)
            self._parts.append(StoredPart(inputs, rows_of(inputs.rows), self._dtype, "the validation X", self._nonce))

    def _hold_out_collection(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        staged = self._stage(X, y, sample_weight, 0.0, "the validation X")
        try:
            full = [piece for piece in staged.pieces if piece.rows]
            outputs = self.signature.n_outputs if self._model.is_classifier else max(1, full[0].targets)
            self._compare(full[0].features, full[0].sparse, outputs)
            part = StagedPart(staged, self._codes(staged, "the validation y"), held_out=False, ordered=False)
        except BaseException:
            staged.close()
            raise
        self._parts.append(part)

    def _stage(self, X: Any, y: Any, sample_weight: Any, fraction: float, name: str) -> Staged:
        partitions = partitions_of(X, y, sample_weight, name)
        client, workers = self._cluster()
        check_partitions(client, workers, partitions, name)
        recipe = Recipe(secrets.token_hex(8), self._dtype, self._model.is_classifier, self._seed, fraction, name)
        info = calls.identity(client, 10.0)
        homes = homes_of(X, partitions, info, list(info) if workers is None else workers)
        return Staged(client, partitions, recipe, workers, homes)

    def _codes(self, staged: Staged, name: str) -> list[Any]:
        if self.classes is None:
            return [None] * len(staged.pieces)
        dtype = np.dtype(np.int32) if len(self.classes) > 2 else np.dtype(self._dtype)
        return [
            None if piece.classes is None else places_of(piece.classes, self.classes, name).astype(dtype)
            for piece in staged.pieces
        ]

    # Both.

    def _sign(self, features: int, sparse: bool, targets: int) -> None:
        task, outputs = "regression", max(1, targets)
        if self.classes is not None:
            task = "binary" if len(self.classes) == 2 else "multiclass"
            outputs = 1 if task == "binary" else len(self.classes)
        self.signature = Signature(features, outputs, task, self._dtype, sparse)  # type: ignore[arg-type]

    def _compare(self, features: int, sparse: bool, outputs: int) -> None:
        if features != self.signature.n_features:
            raise ValueError(
                f"the validation X has {features} columns, X has {self.signature.n_features}: they must be the same features"
            )
        if outputs != self.signature.n_outputs:
            raise ValueError(
                f"the validation y has {outputs} columns, y has {self.signature.n_outputs}: they must be the same targets"
            )


def _refuse_empty_side(fraction: float, rows: int, held: int) -> None:
    if not rows or not held:
        raise ValueError(
            f"validation={fraction} of {rows + held} rows leaves none on one side: pass more data, or (X, y)"
        )


def _check_validation(validation: Any) -> None:
    if validation is None or isinstance(validation, Inputs):
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
