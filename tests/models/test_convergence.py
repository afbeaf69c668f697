"""Gradient descent finds the optimum that scikit-learn's and SciPy's solvers find."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import scale
from sklearn.svm import LinearSVC

from scaleml.models import MLP, LinearModel, Signature
from scaleml.optim import SGD, Adam

N, F = 120, 6


def descend(net, x, y, optimizer, steps, seed=0, weight=None):
    """Return the parameters after full-batch steps, and the objective there."""
    w, g = net.init(seed), np.empty(net.size, net.dtype)
    state = optimizer.init(net.size, net.dtype)
    for t in range(1, steps + 1):
        _, weight_sum = net.loss_grad(w, x, y, weight, g)
        g /= weight_sum
        net.objective_grad(w, g)
        optimizer.apply(w, g, state, t)
    loss_sum, weight_sum = net.loss_grad(w, x, y, weight, g)
    return w, loss_sum / weight_sum + net.penalty(w)


def classes(k):
    x, y = make_classification(N, F, n_informative=4, n_redundant=0, n_classes=k, flip_y=0.2, random_state=1)
    return scale(x), y


def numbers(targets=1):
    x, y = make_regression(N, F, n_targets=targets, noise=5, random_state=1)
    return scale(x), scale(y)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_logistic_regression(k, weighted):
    x, y = classes(k)
    weight = np.random.default_rng(0).random(N) + 0.5 if weighted else None
    total = N if weight is None else weight.sum()
    alpha = 0.01
    signature = Signature(F, dtype="float64") if k == 2 else Signature(F, k, "multiclass")
    net = LinearModel(alpha=alpha, dtype="float64").build(signature)
    labels = y.astype("f8") if k == 2 else y.astype("i4")
    w, value = descend(net, x, labels, SGD(1.0, momentum=0.9, nesterov=True), 600, weight=weight)
    theirs = LogisticRegression(C=1 / (alpha * total), tol=1e-12, max_iter=10_000).fit(x, y, sample_weight=weight)
    if k == 2:
        flat = np.concatenate([theirs.coef_[0], theirs.intercept_])
        assert_allclose(w, flat, atol=1e-5)
    else:
        flat = np.concatenate([theirs.coef_.T.ravel(), theirs.intercept_])
    assert_allclose(net.predict_proba(w, x), theirs.predict_proba(x), atol=1e-5)
    loss_sum, weight_sum = net.loss_grad(flat, x, labels, weight, np.empty(net.size))
    assert_allclose(value, loss_sum / weight_sum + net.penalty(flat), rtol=1e-9)


@pytest.mark.parametrize("targets", [1, 2])
def test_ridge(targets):
    x, y = numbers(targets)
    alpha = 0.1
    net = LinearModel("squared_error", alpha=alpha, dtype="float64").build(Signature(F, targets, "regression"))
    w, _ = descend(net, x, y, SGD(0.5), 400)
    theirs = Ridge(alpha=alpha * N, tol=1e-14).fit(x, y)
    assert_allclose(w, np.concatenate([np.ravel(theirs.coef_.T), np.atleast_1d(theirs.intercept_)]), atol=1e-9)


def test_huber():
    x, y = numbers()
    y[::10] += 20
    epsilon, alpha = 0.3, 0.01
    net = LinearModel("huber", alpha=alpha, epsilon=epsilon, dtype="float64").build(Signature(F, 1, "regression"))
    w, value = descend(net, x, y, SGD(0.5, momentum=0.9, nesterov=True), 1500)

    def objective(w):
        r = np.abs(x @ w[:F] + w[F] - y)
        rows = np.where(r <= epsilon, r**2 / 2, epsilon * (r - epsilon / 2))
        return rows.mean() + alpha / 2 * np.sum(w[:F] ** 2)

    best = minimize(objective, np.zeros(F + 1), method="BFGS", options={"gtol": 1e-7})
    assert_allclose(value, objective(w), rtol=1e-12)
    assert_allclose(value, best.fun, rtol=1e-9)
    assert_allclose(w, best.x, atol=1e-4)


def test_hinge():
    x, y = classes(2)
    alpha = 0.1
    model = LinearModel("hinge", alpha=alpha, fit_intercept=False, dtype="float64")
    net = model.build(Signature(F))
    _, value = descend(net, x, y.astype("f8"), SGD(schedule="optimal", alpha=alpha), 5000)
    theirs = LinearSVC(loss="hinge", C=1 / (alpha * N), fit_intercept=False, tol=1e-10, max_iter=1_000_000).fit(x, y)
    flat = theirs.coef_[0]
    best = net.loss_grad(flat, x, y.astype("f8"), None, np.empty(net.size))[0] / N + net.penalty(flat)
    assert best <= value <= best * 1.001


def test_epsilon_insensitive_and_l1_find_the_sparse_truth():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, F))
    y = x[:, 0] * 2 - x[:, 1] + 0.01 * rng.standard_normal(400)
    for loss in ("epsilon_insensitive", "squared_error"):
        model = LinearModel(loss, penalty="l1", alpha=0.01, epsilon=0.05, dtype="float64")
        net = model.build(Signature(F, 1, "regression"))
        w, _ = descend(net, x, y, SGD(0.3, schedule="invscaling"), 3000)
        assert_allclose(w, [2, -1, 0, 0, 0, 0, 0], atol=0.06)


def test_mlp_as_good_as_scikit_learns():
    x, y = classes(3)
    net = MLP((20,), alpha=0.01, dtype="float64").build(Signature(F, 3, "multiclass"))
    _, value = descend(net, x, y.astype("i4"), Adam(0.02), 600)
    theirs = MLPClassifier(hidden_layer_sizes=(20,), alpha=0.01 * N, solver="lbfgs", max_iter=300, random_state=0)
    with warnings.catch_warnings(action="ignore"):
        theirs.fit(x, y)
    flat = [part for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for part in pair]
    w = np.concatenate([part.ravel() for part in flat])
    found = net.loss_grad(w, x, y.astype("i4"), None, np.empty(net.size))[0] / N + net.penalty(w)
    assert value <= found * 1.1
