"""Ridge on ranks and on Dask data: scikit-learn's coefficients, by normal equations or by L-BFGS."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_sparse
from sklearn import linear_model as sk

from scaleml import AllReduce, Serial
from scaleml.linear_model import Ridge

pytestmark = pytest.mark.usefixtures("cluster")
RNG = np.random.default_rng(2)
# Columns of unlike scales, far from 0: what is squared without a shift loses half of its digits.
X = RNG.standard_normal((300, 6)) * np.geomspace(1, 100, 6) + RNG.uniform(-1e5, 1e5, 6)
Y = (X - X.mean(axis=0)) @ RNG.standard_normal((6, 3)) + RNG.standard_normal((300, 3)) + 7
WEIGHTS = RNG.uniform(0, 3, 300)
SPARSE = csr_matrix(random_sparse(400, 60, 0.1, random_state=0))
OF_SPARSE = SPARSE @ RNG.standard_normal(60) + 3
TWICE = np.hstack([X[:, :2] - X[:, :2].mean(axis=0)] * 2)
CASES: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
    "one target": (X, Y[:, 0], {}, None),
    "a column": (X, Y[:, :1], {"alpha": 3.0}, WEIGHTS),
    "penalties": (X, Y, {"alpha": [1.0, 100.0, 1e4]}, None),
    "one weight": (X, Y, {}, 2.5),
    "no intercept": (X - X.mean(axis=0), Y, {"fit_intercept": False, "solver": "cholesky"}, WEIGHTS),
    "positive": (X, Y, {"positive": True}, WEIGHTS),
    "float32": (((X - X.mean(axis=0)) / X.std(axis=0)).astype("f4"), Y.astype("f4"), {}, None),
    "CSR": (SPARSE, OF_SPARSE, {"tol": 1e-12}, None),
}


def lazily(values: Any, size: int = 100) -> Any:
    if isinstance(values, csr_matrix):
        return lazily(values.toarray(), size).map_blocks(csr_matrix)
    return values if values is None or np.ndim(values) == 0 else da.from_array(values, chunks=(size, *values.shape[1:]))


@pytest.mark.parametrize("where", ["ranks", "Dask"])
@pytest.mark.parametrize("case", CASES)
def test_coefficients_are_scikit_learns(case, where):
    x, y, settings, weights = CASES[case]
    theirs = sk.Ridge(**settings).fit(x, y, weights)
    if where == "ranks":
        ours = Ridge(strategy=AllReduce(), workers=2, **settings).fit(x, y, weights)
    else:
        ours = Ridge(workers=2, **settings).fit(lazily(x), lazily(y, 70), lazily(weights, 90))
    close = 1e-8 if theirs.coef_.dtype == np.float64 else 1e-4
    assert ours.coef_.dtype == theirs.coef_.dtype
    assert_allclose(ours.coef_, theirs.coef_, rtol=close, atol=close)
    assert np.shape(ours.intercept_) == np.shape(theirs.intercept_)
    assert_allclose(ours.intercept_, theirs.intercept_, rtol=close, atol=1e-3 if x is X else close)
    assert ours.n_iter_ is None
    assert ours.score(lazily(x), lazily(y)) == pytest.approx(theirs.score(x, y))
    assert_allclose(ours.predict(lazily(x)).compute(scheduler="synchronous"), theirs.predict(x), rtol=1e-5, atol=1e-3)


def test_columns_that_depend_on_each_other_get_the_solution_of_least_norm():
    ours = Ridge(alpha=0.0, strategy=Serial()).fit(TWICE, Y[:, 0])
    right = np.linalg.lstsq(TWICE, Y[:, 0] - Y[:, 0].mean(), rcond=None)[0]
    assert_allclose(ours.coef_, right, rtol=1e-6)


def test_many_columns_are_fitted_by_lbfgs():
    wide = csr_matrix(random_sparse(900, 2100, 0.02, random_state=1))
    y = wide @ RNG.standard_normal(2100)
    theirs = sk.Ridge(alpha=0.5, tol=1e-10).fit(wide, y)
    ours = Ridge(alpha=0.5, strategy=AllReduce(), workers=2).fit(wide, y)
    assert ours.solver_ == "lbfgs"
    assert_allclose(ours.coef_, theirs.coef_, atol=2e-3 * abs(theirs.coef_).max())
    for settings, says in [
        ({"positive": True}, "positive=True with 2100 columns"),
        ({"solver": "cholesky", "fit_intercept": False}, "solver='cholesky' with 2100 columns"),
    ]:
        with pytest.raises(ValueError, match=says):
            Ridge(strategy=AllReduce(), **settings).fit(wide, y)


def test_what_scikit_learn_or_ranks_refuse_is_refused():
    for settings, says in [
        ({"solver": "lbfgs"}, "positive=True"),
        ({"solver": "cholesky", "positive": True}, "positive=True"),
        ({"solver": "lsqr"}, r"solver='lsqr' with a Dask collection.*use solver='auto', or pass X.compute\(\)"),
        ({"alpha": [1.0, 2.0]}, "alpha has 2 values for 3 targets"),
        ({"alpha": -1.0}, "'alpha' parameter"),
    ]:
        with pytest.raises(ValueError, match=says):
            Ridge(**settings).fit(lazily(X), lazily(Y))
    with pytest.raises(ValueError, match="sparse X and an intercept"):
        Ridge(solver="cholesky", strategy=Serial()).fit(SPARSE, OF_SPARSE)
