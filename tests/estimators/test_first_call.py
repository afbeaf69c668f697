"""A first ``partial_fit`` that is refused leaves nothing behind, where scikit-learn's own leaves ``classes_``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from scaleml.linear_model import SGDClassifier
from scaleml.neural_network import MLPClassifier

X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.array(["ant", "bee", "cow"])[np.arange(60) % 3]
MAKE: dict[str, Callable[[], Any]] = {
    "scikit-learn's code": lambda: SGDClassifier(random_state=0),
    "batches": lambda: SGDClassifier(batch_size=8, random_state=0),
    "perceptron": lambda: MLPClassifier((4,), random_state=0),
}


@pytest.mark.parametrize("kind", MAKE)
def test_a_refused_first_call_can_be_mended(kind: str) -> None:
    model, fresh = MAKE[kind](), MAKE[kind]()
    with pytest.raises(ValueError, match=r"y holds 'cow' \(row 2\), which is none of .*'ant', 'bee'"):
        model.partial_fit(X, Y, classes=["ant", "bee"])
    assert vars(model) == vars(fresh)
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.partial_fit(X[:, :2], Y, classes=["ant", "bee", "cow"])
    fresh.partial_fit(X[:, :2], Y, classes=["ant", "bee", "cow"])
    np.testing.assert_array_equal(model.predict(X[:, :2]), fresh.predict(X[:, :2]))


@pytest.mark.parametrize("kind", MAKE)
def test_a_refused_later_call_takes_nothing_away(kind: str) -> None:
    model = MAKE[kind]().partial_fit(X, Y, classes=["ant", "bee", "cow"])
    before = model.predict(X)
    with pytest.raises(ValueError, match="y holds 'dog'"):
        model.partial_fit(X, np.where(Y == "cow", "dog", Y))
    np.testing.assert_array_equal(model.predict(X), before)
