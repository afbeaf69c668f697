"""Columns in Dask collections: several of y, labels for `MLPClassifier` and numbers for `MLPRegressor`; empty ones of X."""

from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from dask import delayed
from numpy.testing import assert_array_equal
from sklearn.base import is_classifier
from sklearn.datasets import make_multilabel_classification

from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def chunked(values: Any) -> Any:
    return da.from_array(values, chunks=((300, 0, 400, 200), -1))


def unknown(values: Any) -> Any:
    """Chunks as they come out of a dataframe: of unknown sizes."""
    return framed(values).to_dask_array()


def framed(values: Any) -> Any:
    return dd.from_pandas(pd.DataFrame(values).add_prefix("c"), npartitions=3)


@pytest.mark.parametrize("kinds", [(chunked, chunked), (unknown, unknown), (framed, framed), (chunked, np.asarray)])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_several_columns_are_learnt_where_they_lie(kind: Any, kinds: Any) -> None:
    X, labels = make_multilabel_classification(900, 12, n_classes=3, random_state=2)
    X = X / X.std(axis=0)
    settings = {"hidden_layer_sizes": (15,), "learning_rate_init": 0.01, "max_iter": 30, "n_iter_no_change": 30}
    here, there = (kind(batch_size=64, random_state=0, **settings) for _ in range(2))
    y = labels if is_classifier(here) else np.column_stack([X[:, 0], X[:, 1] - X[:, 2]])
    lazy_X, lazy_y = kinds[0](X), kinds[1](y)
    here.fit(X, y)
    there.fit(lazy_X, lazy_y)
    assert (there.n_outputs_, there.out_activation_) == (here.n_outputs_, here.out_activation_)
    predicted = np.asarray(there.predict(lazy_X))
    assert predicted.shape == y.shape
    assert there.score(lazy_X, lazy_y) == pytest.approx(here.score(X, y), abs=0.05)
    if is_classifier(here):
        assert_array_equal(there.classes_, here.classes_)
        assert (predicted == here.predict(X)).mean() > 0.9
        there.partial_fit(lazy_X, lazy_y)
        assert np.asarray(there.predict_proba(lazy_X)).shape == y.shape


def test_early_stopping_watches_labels_that_are_held_out() -> None:
    X, y = make_multilabel_classification(900, 12, n_classes=3, random_state=2)
    model = MLPClassifier((15,), learning_rate_init=0.01, early_stopping=True, n_iter_no_change=3, random_state=0)
    model.fit(chunked(X), chunked(y))
    assert len(model.validation_scores_) == model.n_iter_ < 200
    assert model.best_validation_score_ > 0.5


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (MLPClassifier(), np.eye(900, 2, dtype=int) * 2, r"holds 2 \(row 0, column 0\).*one classifier a column"),
        (SGDClassifier(), np.eye(900, 2, dtype=int), "labels must be one a row"),
        (SGDRegressor(), np.zeros((900, 2)), "y has 2 columns, but this estimator learns one target"),
    ],
    ids=str,
)
def test_other_columns_are_refused(model: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(chunked(np.eye(900, 4)), chunked(y))


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"penalty": "l1", "average": True}])
def test_empty_columns_of_hashed_text_cost_nothing_and_change_nothing(settings: Any) -> None:
    chance = np.random.default_rng(0)
    used = np.sort(chance.choice(5000, 300, replace=False))
    narrow = scipy.sparse.random(900, 300, 0.05, format="csr", random_state=1)
    y = (narrow @ chance.standard_normal(300) > 0).astype(int)
    wide = scipy.sparse.csr_matrix((narrow.data, used[narrow.indices], narrow.indptr), shape=(900, 5000))
    fits = []
    for x in (narrow, wide):
        parts = [
            da.from_delayed(delayed(x[a:b]), (b - a, x.shape[1]), meta=scipy.sparse.csr_matrix((0, 0)))
            for a, b in ((0, 300), (300, 700), (700, 900))
        ]
        lazy_x = da.concatenate(parts)
        model = SGDClassifier("log_loss", random_state=0, **settings).fit(
            lazy_x, da.from_array(y, chunks=((300, 400, 200),))
        )
        fits.append(model)
    assert fits[1].coef_.shape == (1, 5000)
    assert_array_equal(fits[1].coef_[:, used], fits[0].coef_)
    assert not np.delete(fits[1].coef_, used).any()
    assert fits[1].score(wide, y) == fits[0].score(narrow, y) > 0.9
