"""The class with the largest score, against NumPy's argmax."""

from __future__ import annotations

import numpy as np
import pytest

from scaleml.models.blocks import Workspace
from scaleml.models.scoring import first_largest


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 2, 3, 10, 16, 17, 40])
def test_it_is_argmax_with_many_ties(columns, dtype):
    work, random = Workspace(np, dtype), np.random.default_rng(columns)
    for rows in (700, 0, 1, 1200):  # scratch of other lengths is left from before
        scores = random.integers(-2, 3, (rows, columns)).astype(dtype)
        scores[::7] = -np.inf
        assert np.array_equal(first_largest(scores, work), scores.argmax(axis=1))
