"""What networks predict, and what is computed from it, against scikit-learn's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification, make_regression
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

from models.cases import CASES, batch, parameters
from scaleml.models import MLP, LinearModel, Signature
from scaleml.models.network import CHUNK


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
def test_mlp_starts_where_scikit_learns_does(activation):
    x, y = make_classification(30, 8, n_informative=5, n_classes=3, random_state=0)
    theirs = MLPClassifier(
        hidden_layer_sizes=(7, 4), activation=activation, random_state=5, max_iter=1, learning_rate_init=1e-300
    )
    with pytest.warns(UserWarning, match="Maximum iterations"):
        theirs.fit(x.astype("f8"), y)
    net = MLP((7, 4), activation, dtype="float64").build(Signature(8, 3, "multiclass"))
    flat = [part for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for part in pair]
    assert_array_equal(net.init(5), np.concatenate([part.ravel() for part in flat]))
    assert_array_equal(net.init(5), net.init(5))
    assert (net.init(5) != net.init(6)).any()
    assert not LinearModel().build(Signature(8)).init(5).any()


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_mlp_predicts_as_scikit_learns_with_the_same_weights(classes, activation):
    x, y = make_classification(60, 8, n_informative=5, n_classes=classes, random_state=0)
    theirs = MLPClassifier(hidden_layer_sizes=(7, 4), activation=activation, random_state=5, max_iter=3, solver="lbfgs")
    with pytest.warns(UserWarning, match="lbfgs failed"):
        theirs.fit(x, y)
    signature = Signature(8) if classes == 2 else Signature(8, 3, "multiclass")
    net = MLP((7, 4), activation, dtype="float64").build(signature)
    flat = [part for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for part in pair]
    w = np.concatenate([part.ravel() for part in flat])
    assert_allclose(net.predict_proba(w, x), theirs.predict_proba(x), atol=1e-12)
    assert_array_equal(net.predict(w, x), theirs.predict(x))
    assert net.predict(w, x).dtype == np.int32


def test_mlp_regression_predicts_as_scikit_learns():
    x, y = make_regression(60, 8, n_targets=2, random_state=0)
    theirs = MLPRegressor(hidden_layer_sizes=(7,), random_state=5, max_iter=3, solver="lbfgs")
    with pytest.warns(UserWarning, match="lbfgs failed"):
        theirs.fit(x, y)
    net = MLP((7,), loss="squared_error", dtype="float64").build(Signature(8, 2, "regression"))
    flat = [part for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for part in pair]
    assert_allclose(net.predict(np.concatenate([part.ravel() for part in flat]), x), theirs.predict(x))


@pytest.mark.parametrize(("model", "signature"), [case for case in CASES if case[0].is_classifier])
def test_probabilities_sum_to_one(model, signature):
    net = model.build(signature)
    x, _ = batch(signature, 50)
    for scale in (1, 1e4):
        probability = net.predict_proba(parameters(net) * np.float32(scale), x)
        assert probability.shape == (50, max(2, signature.n_outputs))
        assert_allclose(probability.sum(axis=1), 1, rtol=1e-6)
        assert (probability >= 0).all()
        assert_array_equal(probability.argmax(axis=1), net.predict(parameters(net) * np.float32(scale), x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e8])
def test_log_loss_at_extreme_scores(dtype, scale):
    """Right and sure costs nothing, wrong and sure costs the margin; neither overflows (warnings are errors)."""
    x = np.array([[1], [-1], [1], [-1]], dtype)
    for signature, w, labels in (
        (Signature(1), [scale, 0], np.array([1, 0, 0, 1], dtype)),
        (Signature(1, 2, "multiclass"), [-scale / 2, scale / 2, 0, 0], np.array([1, 0, 0, 1], "i4")),
    ):
        net = LinearModel(dtype=dtype).build(signature)
        w = np.array(w, dtype)
        g = np.empty(net.size, dtype)
        assert_allclose(net.loss_grad(w, x[:2], labels[:2], None, g)[0], 0, atol=1e-30)
        assert_allclose(g, 0, atol=1e-30)
        assert_allclose(net.loss_grad(w, x, labels, None, g)[0], 2 * scale, rtol=1e-6)
        assert np.isfinite(g).all()
        assert_allclose(abs(g[0]), 2)
        assert np.isfinite(net.predict_proba(w, x)).all()


def test_log_loss_float32_is_near_float64():
    signature = Signature(6)
    x, y = batch(signature, 1000)
    sums, gradients = [], []
    for dtype in ("float32", "float64"):
        net = LinearModel(dtype=dtype).build(signature)
        gradients.append(np.empty(net.size, dtype))
        w = parameters(net).astype(dtype)
        sums.append(
            net.loss_grad(w.astype("f4").astype(dtype), x.astype(dtype), y.astype(dtype), None, gradients[-1])[0]
        )
    assert_allclose(sums[0], sums[1], rtol=1e-6)
    assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("model", "signature"), CASES)
def test_statistics_add_up_and_are_scikit_learns(model, signature, weighted):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature, 100)
    weight = np.random.default_rng(3).random(100).astype("f4") if weighted else None
    parts = [slice(0, 10), slice(10, 11), slice(11, 11), slice(11, 100)]
    total = sum(net.statistics(w, x[p], y[p], None if weight is None else weight[p]) for p in parts)
    assert total.shape == (net.n_statistics,)
    assert total.dtype == np.float64
    loss, score = net.summarise(total)
    out = np.empty(net.size, "f4")
    sums = net.loss_grad(w, x, y, weight, out)
    assert_allclose(loss, sums[0] / sums[1], rtol=1e-5)
    predicted = net.predict(w, x)
    if signature.task == "regression":
        assert_allclose(score, r2_score(y, predicted, sample_weight=weight), rtol=1e-4)
    else:
        assert_allclose(score, accuracy_score(y, predicted, sample_weight=weight), rtol=1e-6)
        if model == LinearModel():
            probability = net.predict_proba(w, x).astype("f8")
            probability /= probability.sum(axis=1, keepdims=True)
            expected = log_loss(y, probability, sample_weight=weight)
            assert_allclose(loss, expected, rtol=1e-4)


def test_statistics_of_much_data_and_of_none():
    net = LinearModel("squared_error", dtype="float64").build(Signature(1, 1, "regression"))
    x = np.arange(2 * CHUNK + 5, dtype=float)[:, None]
    loss, score = net.summarise(net.statistics(np.array([1.0, 0]), x, x[:, 0] + 1))
    assert_allclose((loss, score), (0.5, 1 - 1 / np.var(x)))
    weight = (x[:, 0] >= CHUNK + 2).astype(float)  # the first chunk and a little more weigh nothing
    loss, score = net.summarise(net.statistics(np.array([1.0, 0]), x, x[:, 0] + 1, weight))
    assert_allclose((loss, score), (0.5, 1 - 1 / np.var(x[CHUNK + 2 :])))
    assert np.isnan(net.summarise(net.statistics(np.array([1.0, 0]), x[:0], x[:0, 0]))).all()
    assert net.summarise(net.statistics(np.zeros(2), x[:3], np.zeros(3))) == (0, 1)
    assert net.summarise(net.statistics(np.ones(2), x[:3], np.zeros(3)))[1] == 0
