"""What tests of estimators share: data, and the cluster of the runtime's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from distributed import Client
from sklearn.datasets import make_classification, make_regression

from embedded import embedded


@pytest.fixture(scope="module")
def cluster() -> Client:
    """The embedded cluster with two workers."""
    return embedded(2)


@pytest.fixture(scope="module")
def classes() -> tuple[Any, Any]:
    """Three classes, 900 rows, 10 columns."""
    return make_classification(900, 10, n_informative=6, n_classes=3, class_sep=1.5, random_state=3)


@pytest.fixture(scope="module")
def numbers() -> tuple[Any, Any]:
    """One target, 600 rows, 8 columns."""
    X, y = make_regression(600, 8, noise=10.0, random_state=4)
    return X, (y - y.mean()) / np.std(y)
