"""Dask data for an estimator: brought to files of the workers, with scikit-learn's checks of columns and names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_feature_names, _check_n_features

from scaleml.data.collection_source import CollectionSource, collection_sources
from scaleml.data.collections import Table, is_frame, refuse_no_table
from scaleml.data.partition import RowFormat


@contextmanager
def staged(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, classifier: bool, reset: bool, indicators: bool = False
) -> Iterator[CollectionSource]:
    """Have X, y and the weights on the workers for as long as the block lasts; see `stage`.

    Parameters
    ----------
    reset : bool
        Whether to set the estimator's columns and names, or to compare with them.
    """
    fraction = float(estimator.validation_fraction) if estimator.early_stopping else 0.0
    whose = (estimator.client, estimator.workers, estimator._seed())
    table = Table(X, y, sample_weight)
    (source,) = stage(estimator, [table], classifier, reset, indicators, fraction, *whose)
    try:
        if estimator.early_stopping and not 0 < source.held < source.all_rows:
            raise ValueError(
                f"validation_fraction={estimator.validation_fraction} of {source.all_rows} rows leaves none on one side: pass "
                "more data, or early_stopping=False"
            )
        if estimator.early_stopping:
            source.refuse_no_weight_on_a_side()
        yield source
    finally:
        source.pieces.close()


def stage(
    estimator: Any,
    tables: Sequence[Table],
    classifier: bool,
    reset: bool,
    indicators: bool,
    fraction: float,
    client: Any,
    workers: Any,
    seed: int | None,
) -> list[CollectionSource]:
    """Bring X, y and the weights to files of the workers, which the caller is to remove.

    Parameters
    ----------
    tables : sequence of Table
        What is trained on, and what is evaluated on, if that is a Dask collection, too.
    classifier : bool
        Whether y holds labels.
    reset : bool
        Whether to set the estimator's columns and names, or to compare with them.
    indicators : bool
        Whether y has a column of 0 and 1 for each label.
    fraction : float
        Of the rows to train on, to hold out.
    client, workers, seed
        Where to, and what decides the order of the rows.

    Raises
    ------
    ValueError, TypeError
        For data that cannot be trained on, with the remedy.
    """
    from scaleml.cluster.staging.first_partition import check_columns
    from scaleml.cluster.staging.room import check_room
    from scaleml.cluster.staging.stager import ClusterStager

    X: Any = tables[0].X
    refuse_no_table(X, "X")
    frame = is_frame(X)
    _check_feature_names(estimator, X._meta if frame and X.ndim == 2 else np.empty((0, 0)), reset=reset)
    kinds = list(X.dtypes) if frame and X.ndim == 2 else [X.dtype]
    single = all(str(kind).lower() == "float32" for kind in kinds)
    form = RowFormat("float32" if single else "float64", classifier, seed)
    check_room(X, form.dtype, client, workers)
    check_columns(X, client, workers)
    stager = ClusterStager(client, workers)
    try:
        sources = collection_sources(tables, form, stager, fraction=fraction, indicators=indicators)
        _check_n_features(estimator, np.broadcast_to(0.0, (1, sources[0].features)), reset=reset)
    except BaseException:
        stager.close()
        raise
    return sources
