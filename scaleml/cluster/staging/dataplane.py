"""The data of one or several runs: checked once, brought to the workers once, whatever kind it is of."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from distributed import Client

from scaleml.cluster.staging.collection import Collection, Find, StagedInputs
from scaleml.cluster.staging.parts import Part, StoredPart
from scaleml.cluster.staging.placing import PlacedData, rows_of
from scaleml.data.collections import is_collection
from scaleml.data.inputs import Inputs, check_inputs
from scaleml.data.split import hold_out
from scaleml.models import Model, Signature


class Data:
    """X and y of several runs.

    Parameters
    ----------
    model : Model
        What is to be trained.
    X, y, sample_weight, validation
        As ``train`` takes them; or X, and the validation data, as ``Inputs`` that were checked already; or X as
        ``StagedInputs``, with the rows that are to be held out, if any.
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
        self._dtype = model.dtype
        self._nonce = os.urandom(16)
        self._parts: list[Part] = []
        _check_validation(validation)
        try:
            if isinstance(X, StagedInputs):
                self._place_staged(X)
            elif is_collection(X):
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
            label="the validation y",
        )
        self._compare(int(inputs.x.shape[1]), hasattr(inputs.x, "indptr"), inputs.n_outputs)
        return inputs

    # Dask.

    def _place_collection(self, X: Any, y: Any, sample_weight: Any, validation: Any) -> None:
        fraction = validation if isinstance(validation, float) else 0.0
        collection = self._stage(X, y, sample_weight, fraction, "X")
        try:
            self._place_staged(StagedInputs(collection, collection.labels, collection.labels))
        except BaseException:
            collection.close()
            raise
        if fraction:
            _refuse_empty_side(fraction, *(part.rows for part in self._parts))
        elif validation is not None and not isinstance(validation, Inputs) and is_collection(validation[0]):
            self._hold_out_collection(*validation)
        elif validation is not None:
            inputs = validation if isinstance(validation, Inputs) else self._checked(*validation)
            self._parts.append(StoredPart(inputs, rows_of(inputs.rows), self._dtype, "the validation X", self._nonce))

    def _place_staged(self, staged: StagedInputs) -> None:
        """Take the training rows, and those that were held out, if any."""
        self.classes = staged.classes
        self._sign(staged.features, staged.is_sparse, staged.n_outputs)
        train = staged.part(held_out=False, ordered=True)
        self._parts.append(train)
        if staged.collection.recipe.fraction:
            self._parts.append(staged.part(held_out=True, ordered=False))

    def _hold_out_collection(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        collection = self._stage(X, y, sample_weight, 0.0, "the validation X")
        try:
            held = StagedInputs(collection, self.classes, self.classes, name="the validation y")
            self._compare(held.features, held.is_sparse, held.n_outputs)
            self._parts.append(held.part(held_out=False, ordered=False))
        except BaseException:
            collection.close()
            raise

    def _stage(self, X: Any, y: Any, sample_weight: Any, fraction: float, name: str) -> Collection:
        return Collection(
            X,
            y,
            sample_weight,
            self._cluster,
            self._dtype,
            classifier=self._model.is_classifier,
            seed=self._seed,
            fraction=fraction,
            name=name,
        )

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
