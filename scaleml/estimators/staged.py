"""Dask data for an estimator: brought to files of the workers, with scikit-learn's checks of columns and names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import _check_feature_names, _check_n_features

from scaleml.data.collections import is_frame

if TYPE_CHECKING:
    from scaleml.cluster.staging.collection import Collection


@contextmanager
def staged(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, classifier: bool, reset: bool, indicators: bool = False
) -> Iterator[Collection]:
    """Have X, y and the weights on the workers for as long as the block lasts.

    Parameters
    ----------
    X : Dask array or dataframe
    y, sample_weight : array-like or Dask collection
    classifier : bool
        Whether y holds labels.
    reset : bool
        Whether to set the estimator's columns and names, or to compare with them.
    indicators : bool
        Whether y has a column of 0 and 1 for each label.

    Raises
    ------
    ValueError, TypeError
        For data that cannot be trained on, with the remedy.
    """
    from scaleml.api.train import finder
    from scaleml.cluster.staging.collection import Collection

    frame = is_frame(X)
    _check_feature_names(estimator, X._meta if frame and X.ndim == 2 else np.empty((0, 0)), reset=reset)
    kinds = list(X.dtypes) if frame and X.ndim == 2 else [X.dtype]
    single = all(str(kind).lower() == "float32" for kind in kinds)
    collection = Collection(
        X,
        y,
        sample_weight,
        finder(estimator.client, estimator.workers),
        "float32" if single else "float64",
        classifier=classifier,
        seed=estimator._seed(),
        fraction=float(estimator.validation_fraction) if estimator.early_stopping else 0.0,
        indicators=indicators,
    )
    try:
        _check_n_features(estimator, np.broadcast_to(0.0, (1, collection.features)), reset=reset)
        held = sum(piece.held for piece in collection.staged.pieces)
        if estimator.early_stopping and not 0 < held < collection.rows:
            raise ValueError(
                f"validation_fraction={estimator.validation_fraction} of {collection.rows} rows leaves none on one side: pass "
                "more data, or early_stopping=False"
            )
        yield collection
    finally:
        collection.close()
