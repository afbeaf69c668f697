"""Every gradient against central finite differences, every loss against its formula."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose

from scaleml.models import MLP, LinearModel, Signature

N, F, K = 13, 5, 3
LINEAR = [
    *itertools.product(
        ["log_loss", "hinge", "squared_hinge", "modified_huber", "perceptron"], ["binary", "multiclass"]
    ),
    ("ovr", "multiclass"),
    *itertools.product(
        ["squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"], ["regression", "targets"]
    ),
]
PENALTIES = ["l2", "l1", "elasticnet", None]


def data(task, *, sparse=False, seed=0):
    """Return X, y and weights of a task in float64."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, F))
    if sparse:
        x[rng.random(x.shape) < 0.6] = 0
        x[3] = 0
    y = {
        "binary": rng.integers(0, 2, N).astype(float),
        "multiclass": rng.integers(0, K, N).astype(np.int32),
        "regression": rng.standard_normal(N),
        "targets": rng.standard_normal((N, K)),
    }[task]
    weight = rng.random(N) + 0.1
    weight[4] = 0
    return scipy.sparse.csr_matrix(x) if sparse else x, y, weight


def linear(loss, **settings):
    """Return a model; ``"ovr"`` is the logistic loss of each class against the rest."""
    return LinearModel(
        loss.replace("ovr", "log_loss"), multiclass="ovr" if loss == "ovr" else "softmax", dtype="float64", **settings
    )


def build(model, task):
    return model.build(
        Signature(F, K if task in ("multiclass", "targets") else 1, task.replace("targets", "regression"))
    )


def objective(net, w, x, y, weight):
    g = np.empty(net.size)
    loss_sum, weight_sum = net.loss_grad(w, x, y, weight, g)
    g /= weight_sum
    net.objective_grad(w, g)
    return loss_sum / weight_sum + net.penalty(w), g


def check_gradient(net, x, y, weight):
    w = np.random.default_rng(7).standard_normal(net.size)
    _, g = objective(net, w, x, y, weight)
    step = 1e-6
    numeric = np.empty(net.size)
    for i in range(net.size):
        ends = []
        for sign in (1, -1):
            moved = w.copy()
            moved[i] += sign * step
            ends.append(objective(net, moved, x, y, weight)[0])
        numeric[i] = (ends[0] - ends[1]) / (2 * step)
    assert_allclose(g, numeric, rtol=1e-6, atol=1e-7 if net.size < 50 else 3e-7)
    assert np.abs(g).max() > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("loss", "task"), LINEAR)
def test_linear(loss, task, penalty, sparse, weighted):
    x, y, weight = data(task, sparse=sparse)
    net = build(linear(loss, penalty=penalty, alpha=0.3, l1_ratio=0.4, epsilon=0.5), task)
    check_gradient(net, x, y, weight if weighted else None)


@pytest.mark.parametrize(("loss", "task"), LINEAR)
def test_linear_without_intercept(loss, task):
    x, y, weight = data(task)
    net = build(linear(loss, fit_intercept=False, epsilon=0.5), task)
    assert net.size == F * (K if task in ("multiclass", "targets") else 1)
    check_gradient(net, x, y, weight)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("hidden", [(), (4,), (4, 3), (3, 1, 4, 2)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "targets"])
def test_mlp(task, activation, hidden, sparse):
    x, y, weight = data(task, sparse=sparse)
    loss = "log_loss" if task in ("binary", "multiclass") else "squared_error"
    net = build(MLP(hidden, activation, loss, alpha=0.2, dtype="float64"), task)
    check_gradient(net, x, y, weight if len(hidden) % 2 else None)


def formula(loss, task, scores, y, epsilon):
    """Return the loss of each row, written as the textbook does."""
    if task in ("regression", "targets"):
        r = np.abs(scores - y)
        values = {
            "squared_error": r**2 / 2,
            "huber": np.where(r <= epsilon, r**2 / 2, epsilon * r - epsilon**2 / 2),
            "epsilon_insensitive": np.where(r <= epsilon, 0, r - epsilon),
            "squared_epsilon_insensitive": np.where(r <= epsilon, 0, r - epsilon) ** 2,
        }[loss]
        return values if values.ndim == 1 else values.sum(axis=1)
    if loss == "log_loss" and task == "multiclass":
        probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        return -np.log(probability[np.arange(N), y])
    margin = np.where(y == 1 if task == "binary" else np.eye(K)[y] == 1, scores, -scores)
    hinge = np.maximum(0, 1 - margin)
    values = {
        "log_loss": np.log1p(np.exp(-margin)),
        "ovr": np.log1p(np.exp(-margin)),
        "hinge": hinge,
        "squared_hinge": hinge**2,
        "modified_huber": np.where(margin >= -1, hinge**2, -4 * margin),
        "perceptron": np.maximum(0, -margin),
    }[loss]
    return values if values.ndim == 1 else values.sum(axis=1)


@pytest.mark.parametrize(("loss", "task"), LINEAR)
def test_losses_and_scores_are_the_textbook_ones(loss, task):
    x, y, weight = data(task)
    net = build(linear(loss, epsilon=0.5), task)
    w = np.random.default_rng(1).standard_normal(net.size)
    coef, intercept = w[: net.blocks[0].n_weights], w[net.blocks[0].n_weights :]
    scores = x @ (coef.reshape(F, K) if net.signature.n_outputs > 1 else coef) + intercept
    assert_allclose(net.scores(w, x), scores)
    rows = formula(loss, task, scores, y, 0.5)
    g = np.empty(net.size)
    assert_allclose(net.loss_grad(w, x, y, weight, g), (weight @ rows, weight.sum()))
    assert_allclose(net.loss_grad(w, x, y, None, g), (rows.sum(), N))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_is_scikit_learns_and_spares_the_intercept(penalty):
    net = build(LinearModel(penalty=penalty, alpha=0.3, l1_ratio=0.4, dtype="float64"), "binary")
    w = np.array([1.0, -2, 0, 3, -1, 100])
    l1, l2 = 7.0, 15 / 2
    ratio = {"l2": 0, "l1": 1, "elasticnet": 0.4, None: None}[penalty]
    assert_allclose(net.penalty(w), 0 if ratio is None else 0.3 * (ratio * l1 + (1 - ratio) * l2))


def test_penalty_of_an_mlp_spares_the_biases():
    net = build(MLP((4,), alpha=0.5, dtype="float64"), "multiclass")
    w = np.random.default_rng(0).standard_normal(net.size)
    first, second = w[:20], w[24:36]
    assert_allclose(net.penalty(w), 0.25 * (first @ first + second @ second))
