"""Several targets, and labels of text, as scikit-learn has them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn import neural_network as theirs
from sklearn.datasets import make_regression

from scaleml import neural_network as ours
from scaleml.estimators import rowwise
from scaleml.linear_model import SGDClassifier


@pytest.mark.parametrize("settings", [{}, {"solver": "sgd", "learning_rate": "adaptive"}], ids=repr)
def test_the_loss_of_several_targets(settings):
    x, y = make_regression(800, 10, n_targets=4, noise=5.0, random_state=0)
    common = {"hidden_layer_sizes": (8,), "max_iter": 600, "tol": 1e-3, "random_state": 0, **settings}
    expected = theirs.MLPRegressor(**common).fit(x, y / 100)
    found = ours.MLPRegressor(**common).fit(x, y / 100)
    assert found.n_iter_ == expected.n_iter_ < 600
    assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-3)


@pytest.mark.parametrize("little", [0, rowwise.LITTLE], ids=["batches", "rows"])
def test_text_is_numpys_text_whatever_came(monkeypatch, classes, little):
    monkeypatch.setattr(rowwise, "LITTLE", little)
    x, codes = classes
    text = np.array(["ant", "bee", "cat"])[codes]
    for labels in (text, text.astype(object), pd.Series(text), pd.Series(text).astype("category")):
        model = SGDClassifier(max_iter=2, tol=None).fit(x, labels)
        assert model.classes_.dtype == model.predict(x).dtype == "<U3"
