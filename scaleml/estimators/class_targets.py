"""Class targets: how labels of a linear classifier become what its ranks train on, and class weights those of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from scaleml.data.labels import as_text, encode_labels
from scaleml.estimators.base import KINDS, inputs_of
from scaleml.estimators.checked import validated
from scaleml.estimators.linear import coded
from scaleml.estimators.weights import mean_one, of_classes, row_weights


class ClassTargets:
    """What a linear classifier makes of labels."""

    classes_: Any
    _own_weights: tuple[float, ...] | None = None
    """What each of three classes and more weighs in its own problem."""

    def _checked(self: Any, X: Any, y: Any) -> tuple[Any, Any, Any]:
        """Return X, y and its classes, of a first fit."""
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C")
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
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", reset=False)
        codes, _ = encode_labels(as_text(y), self.classes_, "the validation y")
        target, n_classes = coded(self.loss, codes, len(self.classes_), X.dtype)
        return inputs_of(X, target, row_weights(sample_weight, X, scaled=True), n_classes)

    def _staged_inputs(self: Any, rows: Any) -> Any:
        """Return a staged collection as it is trained on by a first fit."""
        self._initial(None, None)
        self.classes_ = as_text(rows.found_labels)
        return self._coded_there(rows)

    def _coded(self: Any, X: Any, y: Any, sample_weight: Any) -> Any:
        """Return checked rows as inputs: codes or +-1, and their weights with those of their classes."""
        y = as_text(y)
        codes, _ = encode_labels(y, self.classes_)
        weights = row_weights(sample_weight, X, scaled=True)
        mass = np.bincount(codes, weights, len(self.classes_))
        factors = self._weighed(y, None, mass)
        if factors is not None:
            weights = mean_one(factors[codes] if weights is None else factors[codes] * weights)
        target, n_classes = coded(self.loss, codes, len(self.classes_), X.dtype)
        return inputs_of(X, target, weights, n_classes, getattr(self, "feature_names_in_", None))

    def _coded_there(self: Any, rows: Any) -> Any:
        """Return a staged collection as inputs; see `_coded`."""
        labels, factors = self.classes_, None
        counts, mass = rows.tally(labels)
        own = self._weighed(labels[counts > 0], counts[counts > 0], mass)
        if rows.is_weighted or own is not None:
            factors = np.ones(len(labels)) if own is None else own
            factors = factors * (counts.sum() / float(factors @ mass))
        table, n_classes = coded(self.loss, np.arange(len(labels)), len(labels), np.dtype(rows.dtype))
        return rows.coded(None if n_classes is None else np.arange(n_classes), labels, table, factors)

    def _weighed(self: Any, y: Any, counts: Any, mass: Any) -> Any:
        """Take in `class_weight` for labels that come so often; return what the rows of two classes are multiplied by.

        ``mass`` is what the rows of each class weigh together.
        """
        self._own_weights = None
        if self.class_weight is None:
            return None
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=counts)
        weights = of_classes(self.class_weight, weights, mass)
        if len(weights) == 2:
            return weights
        self._own_weights = tuple(weights.tolist())
        return None
