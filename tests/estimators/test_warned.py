"""What is warned of comes at the user's line, and filters that name scikit-learn still hold."""

from __future__ import annotations

import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning

from scaleml.estimators import rowwise
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

SHORT = [
    SGDClassifier(max_iter=2, tol=0.0),
    SGDRegressor(max_iter=2, tol=0.0),
    MLPClassifier((4,), max_iter=2),
    MLPRegressor(hidden_layer_sizes=(4,), max_iter=2),
]


@pytest.mark.parametrize("little", [0, rowwise.LITTLE], ids=["batches", "rows"])
@pytest.mark.parametrize("estimator", SHORT, ids=lambda estimator: type(estimator).__name__)
def test_training_that_has_not_converged(monkeypatch, classes, estimator, little):
    monkeypatch.setattr(rowwise, "LITTLE", little)
    x, y = classes
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        estimator.fit(x, y)
    (found,) = heard
    assert found.category is ConvergenceWarning
    if not little:
        assert found.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
        estimator.fit(x, y)
