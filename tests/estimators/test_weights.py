"""Whatever rows weigh, linear models come to the weighted optimum: no step overshoots, whatever is in its batch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import linear_model as sk

from scaleml import linear_model as ours
from scaleml.data.row_sample import sample_rows
from scaleml.optim import Columns, RowRate, RowSteps

ROWS, FEATURES = 300, 6
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((ROWS, FEATURES)) * [1, 1, 1, 0.1, 10, 1] + [0, 0.5, 0, 0, 0, 0]
TARGET = X @ [1, 2, -1, 10, 0.2, 0] + 0.1 * RANDOM.standard_normal(ROWS)
LABELS = (np.median(TARGET) < TARGET).astype(int)
EVERY = np.arange(ROWS)
WEIGHTS = {
    "one row of 10": (EVERY % 10 == 0) * 1.0,
    "one row of 10, the others next to nothing": np.where(EVERY % 10 == 0, 1, 1e-12),
    "the first rows alone, whole batches nothing": (EVERY < 40) * 1.0,
    "lognormal": RANDOM.lognormal(0, 2.5, ROWS),
    "one row a million": np.where(EVERY == 7, 1e6, 1.0),
    "huge": RANDOM.uniform(1, 3, ROWS) * 1e307,
    "tiny": RANDOM.uniform(1, 3, ROWS) * 1e-310,
    "integers": RANDOM.integers(100, 10_000, ROWS),
}
REGRESSION = ["squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"]
CLASSES = ["hinge", "log_loss", "squared_hinge", "modified_huber", "perceptron"]
SETTINGS = [
    {}, {"penalty": "l1"}, {"penalty": "elasticnet", "average": True}, {"penalty": None, "batch_size": 8},
    {"early_stopping": True}, {"learning_rate": "constant", "eta0": 100.0}, {"fit_intercept": False},
    {"learning_rate": "adaptive", "eta0": 0.5, "batch_size": 100},
]  # fmt: skip


def cases(losses):
    return [
        (
            name,
            loss,
            SETTINGS[(place // 2 + 3 * shift) % len(SETTINGS)],
            csr_matrix if (place + 2 * shift) % 3 == 0 else np.asarray,
        )
        for shift, loss in enumerate(losses)
        for place, name in enumerate(WEIGHTS)
        if (place + shift) % 2 == 0
    ]


def relative(name):
    """The weights at a mean of 1, for an oracle that cannot add up the largest floats."""
    weights = WEIGHTS[name] / WEIGHTS[name].max()
    return weights / weights.mean()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "loss", "settings", "kind"), cases(REGRESSION))
def test_numbers_are_learnt_under_any_weights(name, loss, settings, kind):
    usual = {
        "batch_size": 16,
        "random_state": 0,
        "learning_rate": "optimal",
        "max_iter": 60,
        "alpha": 1e-5,
        "epsilon": 0.5,
    }
    weights = relative(name)
    reg = ours.SGDRegressor(loss, **usual | settings).fit(kind(X), TARGET, sample_weight=WEIGHTS[name])
    assert np.average((reg.predict(X) - TARGET) ** 2, weights=weights) < 0.1 * TARGET.var()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "loss", "settings", "kind"), cases(CLASSES))
def test_labels_are_learnt_under_any_weights(name, loss, settings, kind):
    usual = {"batch_size": 16, "random_state": 0, "max_iter": 40}
    clf = ours.SGDClassifier(loss, **usual | settings).fit(kind(X), LABELS, sample_weight=WEIGHTS[name])
    assert np.isfinite(clf.coef_).all()
    assert clf.score(X, LABELS, relative(name)) > 0.85


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_weights_that_select_rows_are_as_good_as_those_rows_alone():
    for name in ("one row of 10", "one row of 10, the others next to nothing"):
        weights = WEIGHTS[name]
        least = sk.LinearRegression().fit(X, TARGET, sample_weight=weights).score(X, TARGET)
        own = sk.SGDRegressor(random_state=0).fit(X, TARGET, sample_weight=weights).score(X, TARGET)
        for more in ({}, {"average": True}, {"penalty": "l1"}):
            reg = ours.SGDRegressor(batch_size=8, random_state=0, alpha=1e-6, max_iter=100, **more)
            assert reg.fit(X, TARGET, sample_weight=weights).score(X, TARGET) > min(least, own) - 0.05


@pytest.mark.parametrize("own", [{0: 1000, 1: 1, 2: 1}, {0: 1e-6, 1: 1, 2: 1}, {0: 0, 1: 1, 2: 50}])
def test_weights_of_classes_do_not_overshoot_either(own):
    y = np.digitize(TARGET, np.quantile(TARGET, [0.3, 0.6]))
    for loss in ("log_loss", "squared_hinge"):
        clf = ours.SGDClassifier(loss, class_weight=own, batch_size=16, random_state=0, max_iter=10, tol=None).fit(X, y)
        theirs = sk.LogisticRegression(class_weight=own, max_iter=1000).fit(X, y)
        weights = np.vectorize(own.get)(y)
        assert clf.score(X, y, weights) > theirs.score(X, y, weights) - 0.1


def test_no_batch_overshoots():
    weights = relative("lognormal")
    seen = sample_rows(X, TARGET, weights, 4096)
    assert seen.counts.sum() == ROWS
    columns = Columns(FEATURES).add(seen.x, seen.weights * seen.counts)
    mean = np.average(X, axis=0, weights=weights)
    np.testing.assert_allclose(columns.means, mean)
    np.testing.assert_allclose(columns.squares, np.average(X**2, axis=0, weights=weights))
    batch = 16
    steps = RowSteps.measured(
        seen.x, columns, RowRate("constant", 1e3), batch, ROWS, weights=seen.weights, counts=seen.counts, seed=0,
        intercept=True, curvature=1.0, dtype="float64",
    )  # fmt: skip
    largest, lifted = [], np.column_stack([X, np.ones(ROWS)])
    for _ in range(20):
        order = RANDOM.permutation(ROWS)
        for part in order[: ROWS - ROWS % batch].reshape(-1, batch):
            hessian = lifted[part].T * weights[part] @ lifted[part] / batch
            step = np.array([one.copy() for one in hessian])
            for one in step:  # a column of the Hessian is the gradient of a unit
                steps.apply(one, 0, batch, weights[part].mean())
            largest.append(abs(np.linalg.eigvals(step)).max())
    assert max(largest) < 2
    assert np.median(largest) > 0.02
