"""Class targets: how labels of a linear classifier become what its ranks train on, and class weights those of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from scaleml.data.labels import as_text, encode_labels
from scaleml.estimators.base import KINDS, inputs_of, refuse_no_weight, weights_for
from scaleml.estimators.linear import coded


class ClassTargets:
    """What a linear classifier makes of labels."""

    classes_: Any
    _own_weights: tuple[float, ...] | None = None
    """What each of three classes and more weighs in its own problem."""

    def _checked(self: Any, X: Any, y: Any) -> tuple[Any, Any, Any]:
        """Return X, y and its classes, of a first fit."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=KINDS, order="C")
        check_classification_targets(y)
        y = as_text(y)
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(classes)} class")
        return X, y, classes

    def _inputs(self: Any, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check the rows of a first fit, forget what an earlier one has left, and return them as they are trained on."""
        X, y, classes = self._checked(X, y)
        self._initial(None, None)
        self.classes_ = classes
        return self._coded(X, y, sample_weight)

    def _held_out(self: Any, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check rows to evaluate on, and return them so; they weigh what the user says, whatever `class_weight`."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", reset=False)
        codes, _ = encode_labels(as_text(y), self.classes_, "the validation y")
        target, n_classes = coded(self.loss, codes, len(self.classes_), X.dtype)
        return inputs_of(X, target, None if sample_weight is None else weights_for(sample_weight, X), n_classes)

    def _staged_inputs(self: Any, rows: Any) -> Any:
        """Return a staged collection as it is trained on by a first fit."""
        self._initial(None, None)
        self.classes_ = as_text(rows.found_labels)
        return self._coded_there(rows)

    def _coded(self: Any, X: Any, y: Any, sample_weight: Any) -> Any:
        """Return checked rows as inputs: codes or +-1, and their weights with those of their classes."""
        codes = np.searchsorted(self.classes_, y)
        of_classes = self._weighed(y, None)
        weights = weights_for(sample_weight, X, None if of_classes is None else of_classes[codes])
        target, n_classes = coded(self.loss, codes, len(self.classes_), X.dtype)
        return inputs_of(X, target, weights, n_classes, getattr(self, "feature_names_in_", None))

    def _coded_there(self: Any, rows: Any) -> Any:
        """Return a staged collection as inputs; see `_coded`."""
        labels, factors = self.classes_, None
        counts, mass = rows.tally(labels)
        there = labels[counts > 0], counts[counts > 0]
        of_classes = self._weighed(*there)
        if rows.is_weighted or of_classes is not None:
            factors = np.ones(len(labels)) if of_classes is None else of_classes
            factors = factors * (counts.sum() / refuse_no_weight(float(factors @ mass)))
        table, n_classes = coded(self.loss, np.arange(len(labels)), len(labels), np.dtype(rows.dtype))
        return rows.coded(None if n_classes is None else np.arange(n_classes), labels, table, factors)

    def _weighed(self: Any, y: Any, counts: Any) -> Any:
        """Take in `class_weight` for labels that come so often; return what the rows of two classes are multiplied by."""
        self._own_weights = None
        if self.class_weight is None:
            return None
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=counts)
        if len(weights) == 2:
            return weights
        self._own_weights = tuple(weights.tolist())
        return None
