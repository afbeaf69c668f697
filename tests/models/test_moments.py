"""Moments of rows against their definitions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix

from scaleml.models import Signature
from scaleml.models.moments import Moments

RNG = np.random.default_rng(1)
X, Y, WEIGHTS = RNG.standard_normal((40, 3)) + 5, RNG.standard_normal((40, 2)), RNG.uniform(0, 2, 40)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_are_the_sums_of_their_definitions_and_add_over_parts(weights, sparse, dtype):
    shift = () if sparse else (5.0, 4.0, 6.0)
    flat = Moments(shift, (1.0, -1.0), dtype).build(Signature(3, 2, "regression", dtype, sparse))
    x = (csr_matrix(X) if sparse else X).astype(dtype)
    total, mass = np.zeros(flat.size), 0.0
    for part in (slice(0, 25), slice(25, 40)):
        out = np.full(flat.size, np.nan)
        own = None if weights is None else weights[part]
        _, weight = flat.loss_grad(flat.init(0), x[part], Y[part].astype(dtype), own, out)
        total -= out
        mass += weight
    rows, targets = X - (np.array(shift) if shift else 0.0), Y - [1.0, -1.0]
    w = np.ones(40) if weights is None else weights
    found, close = flat.parts(total), 1e-12 if dtype == "float64" else 1e-5
    assert mass == pytest.approx(w.sum())
    assert_allclose(found.xx, (rows * w[:, None]).T @ rows, rtol=close, atol=close)
    assert_allclose(found.xy, (rows * w[:, None]).T @ targets, rtol=close, atol=10 * close)
    assert_allclose(found.x, w @ rows, rtol=close, atol=10 * close)
    assert_allclose(found.y, w @ targets, rtol=close, atol=10 * close)
    assert_allclose(found.yy, w @ targets**2, rtol=close)
