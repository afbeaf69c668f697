"""The gradient of the objective, whole and in parts."""

from __future__ import annotations

import numpy as np
import pytest

from scaleml.arrays import PART
from scaleml.models import MLP, LinearModel, Signature


@pytest.mark.parametrize("model", [MLP((300, 70), alpha=0.5), LinearModel(penalty="elasticnet", alpha=0.5)], ids=repr)
@pytest.mark.parametrize("features", [3, PART // 300, PART // 150 + 11, 2 * PART])
def test_long_vectors_get_the_penalty_of_short_ones(model, features):
    if features > PART and isinstance(model, MLP):
        features = 900
    network, random = model.build(Signature(features)), np.random.default_rng(0)
    w, g = (random.standard_normal(network.size).astype("f4") for _ in range(2))
    expected = g / np.float32(4)
    for block in network.blocks:
        part = slice(block.start, block.start + block.n_weights)
        expected[part] += np.float32(network.l2) * w[part]
        expected[part] += np.float32(network.l1) * np.sign(w[part])
    squares = network.objective_grad(w, g, 0.25)
    assert np.array_equal(g, expected)
    assert np.isclose(squares, (expected.astype("f8") ** 2).sum())
