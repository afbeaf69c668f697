"""Lazy predictions of Dask collections by a fitted estimator: scikit-learn's own, block by block."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from sklearn.utils.validation import check_is_fitted

from scaleml.data.collections import is_bag, is_collection, is_frame, refuse_no_table
from scaleml.data.columns import matrix_of_frame, refuse_pieces
from scaleml.estimators.blockwise import can_label, labels

_NOT_NEEDED: Final = (
    *("_end", "_columns", "_client", "_skl_callbacks", "feature_names_in_", "loss_curve_", "validation_scores_"),
    *("_standard_coef", "_standard_intercept", "_average_coef", "_average_intercept", "_loss_function_"),
    *("_coef_grads", "_intercept_grads", "_optimizer", "_random_state", "_no_improvement_count"),
)
_SETTINGS: Final = ("strategy", "workers", "optimizer", "batch_size", "random_state", "verbose", "n_jobs", "warm_start")
"""Of training alone: what is predicted does not depend on them."""


def by_blocks(estimator: Any, method: str, X: Any) -> Any:
    """Return a Dask array of what a method gives for the rows of X, a Dask array or dataframe, in X's chunks.

    The columns' number and names are checked at once, the values when they are computed.

    Raises
    ------
    ValueError, TypeError
        For columns other than those of the training data, as far as they are known.
    """
    from scaleml.api.lazy_prediction import blocks

    check_is_fitted(estimator)
    meta = getattr(estimator, method)(one_row(X, estimator.n_features_in_))[:0]
    bare = copy.deepcopy(bare_of(estimator))  # what the estimator learns from now on is not in it
    return blocks(X, _apply, (method, meta), bare, token_of(bare), meta)


def local(estimator: Any, *values: Any) -> list[Any]:
    """Return y and the weights in this process: those that are Dask collections are fetched."""
    for value, what in zip(values, ("y", "sample_weight"), strict=False):
        refuse_pieces(value, what)
        if is_bag(value):
            refuse_no_table(value, what)
    lazy = [value for value in values if is_collection(value)]
    found = iter(computed(estimator, lazy)) if lazy else iter(())
    return [next(found) if is_collection(value) else value for value in values]


def computed(estimator: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Return Dask collections and delayed values computed, together, on the estimator's cluster."""
    if estimator.client is not None:
        return list(estimator.client.gather(estimator.client.compute(list(values))))
    from dask.base import compute

    return list(compute(*values, traverse=False))


def one_row(X: Any, features: int) -> Any:
    """Return a row of zeros as X has them, by what is known of it: names, number and dtype of the columns."""
    from scaleml.api.lazy_prediction import check_table

    check_table(X)
    if is_frame(X):
        import pandas as pd

        dtype = matrix_of_frame(X._meta_nonempty, "X").dtype
        return pd.DataFrame(np.zeros((1, len(X.columns)), dtype), columns=list(X.columns))
    width = X.shape[1]
    return np.zeros((1, features if np.isnan(width) else int(width)), X.dtype)


def bare_of(estimator: Any) -> Any:
    """Return what predicts, without the rest: names were checked already, and blocks come without them."""
    bare = copy.copy(estimator)
    for name in _NOT_NEEDED:
        vars(bare).pop(name, None)
    for name in _SETTINGS:
        if name in vars(bare):
            setattr(bare, name, None)
    return bare


def token_of(bare: Any) -> str:
    """Return a name for all that decides what is predicted."""
    from dask.base import tokenize

    return str(tokenize(type(bare).__name__, sorted(vars(bare).items(), key=lambda item: item[0])))


def matrix_of_block(block: Any) -> Any:
    """Return X of a block as scikit-learn's methods take it."""
    return matrix_of_frame(block, "X") if hasattr(block, "iloc") else block


def _apply(block: Any, method: str, meta: Any, bare: Any) -> Any:
    x = matrix_of_block(block)
    function = partial(labels, bare) if method == "predict" and can_label(bare, x) else getattr(bare, method)
    return function(x).astype(meta.dtype, copy=False)
