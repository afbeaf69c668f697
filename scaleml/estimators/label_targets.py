"""Label targets: how labels of a perceptron become what its ranks train on, and class weights those of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from scaleml.data.collections import is_several
from scaleml.data.labels import as_text, encode_labels, refuse_unordered
from scaleml.estimators import lazy
from scaleml.estimators.base import KINDS, column_of, inputs_of
from scaleml.estimators.checked import validated
from scaleml.estimators.staged import staged
from scaleml.estimators.weights import of_classes, row_weights


class LabelTargets:
    """What a perceptron for classes makes of labels."""

    classes_: Any

    def _checked(self: Any, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Any, Any, Any]:
        y, sample_weight = lazy.local(self, y, sample_weight)
        refuse_unordered(y)
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, multi_output=True, reset=reset)
        y = column_of(y.toarray() if hasattr(y, "toarray") else y)
        check_classification_targets(y)
        if y.ndim > 1 and type_of_target(y) != "multilabel-indicator":
            raise ValueError(
                f"y has shape {y.shape} and other values than 0 and 1: several classes a row are not trained here; fit one "
                "classifier a column, or make a column of 0 and 1 of each label"
            )
        return X, y, row_weights(sample_weight, X)

    def _coded(self: Any, X: Any, y: Any, weights: Any) -> Any:
        if y.ndim > 1:  # several labels a row: a column of 0 and 1 for each
            self._weighed(None, several=True)
            self._label_binarizer = LabelBinarizer().fit(y)
            return inputs_of(X, y.astype(X.dtype), weights, None, getattr(self, "feature_names_in_", None))
        self._label_binarizer = LabelBinarizer().fit(self.classes_)
        codes, _ = encode_labels(as_text(y), self.classes_)
        count = len(self.classes_)
        factors = self._weighed(np.bincount(codes, minlength=count), np.bincount(codes, weights, count))
        if factors is not None:
            weights = factors[codes] if weights is None else weights * factors[codes]
        return inputs_of(X, codes, weights, len(self.classes_), getattr(self, "feature_names_in_", None))

    def _weighed(self: Any, counts: Any, mass: Any = None, *, several: bool = False) -> Any:
        """Return what the rows of each class weigh, for so many rows of each, which weigh so much together; None for alike."""
        if self.class_weight is None:
            return None
        if several:
            raise ValueError(
                f"class_weight={self.class_weight!r} with several labels a row, which have no one class: weigh rows with sample_weight"
            )
        there = counts > 0
        weights = np.ones(len(counts))
        weights[there] = compute_class_weight(
            self.class_weight, classes=self.classes_[there], y=self.classes_[there], sample_weight=counts[there]
        )
        return of_classes(self.class_weight, weights, mass)

    def _staged(self: Any, X: Any, y: Any, weights: Any, reset: bool) -> Any:
        several = is_several(y)
        return staged(self, X, y, weights, classifier=not several, reset=reset, indicators=several)

    def _coded_there(self: Any, rows: Any) -> Any:
        """Return a staged collection as inputs; see `_coded`."""
        if rows.found_labels is None:
            if rows.targets != len(self.classes_):
                raise ValueError(
                    f"y has {rows.targets} columns, but there are {len(self.classes_)} labels: one column for each"
                )
            self._weighed(None, several=True)
            self._label_binarizer = LabelBinarizer().fit(np.eye(rows.targets, dtype=int))
            return rows.coded(None, None)
        self._label_binarizer = LabelBinarizer().fit(self.classes_)
        counts, mass = (
            whole - held
            for whole, held in zip(rows.tally(self.classes_), rows.tally(self.classes_, held_out=True), strict=True)
        )
        return rows.coded(self.classes_, self.classes_, None, self._weighed(counts, mass))

    def _inputs(self: Any, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check the rows of a first fit, forget what an earlier one has left, and return them as they are trained on."""
        X, y, sample_weight = self._checked(X, y, sample_weight, reset=True)
        self._open(False, unique_labels(y))
        return self._coded(X, y, sample_weight)

    def _held_out(self: Any, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check rows to evaluate on, and return them so."""
        X, y, sample_weight = self._checked(X, y, sample_weight, reset=False)
        if y.ndim == 1:
            codes, _ = encode_labels(y, self.classes_, "the validation y")
            return inputs_of(X, codes, sample_weight, len(self.classes_))
        return inputs_of(X, y.astype(X.dtype), sample_weight, None)

    def _staged_inputs(self: Any, rows: Any) -> Any:
        """Return a staged collection as it is trained on by a first fit."""
        self._open(False, np.arange(rows.targets) if rows.found_labels is None else as_text(rows.found_labels))
        return self._coded_there(rows)
