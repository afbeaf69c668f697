"""What a network promises beside its gradients."""

import copy
import pickle
import threading

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification, make_regression
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

from scaleml.models import MLP, LinearModel, Network, Signature
from scaleml.models.blocks import Workspace
from scaleml.models.network import CHUNK

MULTI = Signature(6, 3, "multiclass")
CASES = [
    (LinearModel(), Signature(6)),
    (LinearModel(), MULTI),
    (LinearModel("huber"), Signature(6, 2, "regression")),
    (MLP(()), MULTI),
    (MLP((5,), "tanh"), Signature(6)),
    (MLP((5, 4), "logistic"), MULTI),
    (MLP((5, 4, 3), loss="squared_error"), Signature(6, 1, "regression")),
]


def batch(signature, n=9, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, signature.n_features)).astype(dtype)
    if signature.task == "multiclass":
        return x, rng.integers(0, signature.n_outputs, n).astype(np.int32)
    if signature.task == "binary":
        return x, rng.integers(0, 2, n).astype(dtype)
    shape = (n, signature.n_outputs) if signature.n_outputs > 1 else (n,)
    return x, rng.standard_normal(shape).astype(dtype)


def parameters(net, seed=0):
    return np.random.default_rng(seed).standard_normal(net.size).astype(net.dtype)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("model", "signature"), CASES)
def test_composing_the_blocks_is_loss_grad(model, signature, weighted):
    net = model.build(signature)
    w = parameters(net)
    x, y = batch(signature)
    weight = np.linspace(0, 1, len(x), dtype="f4") if weighted else None
    expected = np.full(net.size, np.nan, "f4")
    sums = net.loss_grad(w, x, y, weight, expected)

    out, saved, h = np.full(net.size, np.nan, "f4"), [], x
    for block in net.blocks:
        h, kept = block.forward(w[block.start : block.stop], h)
        saved.append(kept)
    assert_array_equal(h, net.scores(w, x))
    loss_sum, weight_sum, d = net.loss.gradient(h, y, weight, Workspace(np, "f4"))
    for block, kept in zip(reversed(net.blocks), reversed(saved), strict=True):
        d = block.backward(w[block.start : block.stop], kept, d, out[block.start : block.stop])
    assert_array_equal(out, expected)
    assert (loss_sum, weight_sum) == sums
    assert d.shape == x.shape  # the first block, too, can say the gradient with respect to its input


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_parts_are_final_when_they_are_said_to_be(model, signature):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature)
    expected, out, parts = np.empty(net.size, "f4"), np.full(net.size, np.nan, "f4"), []
    net.loss_grad(w, x, y, None, expected)

    def ready(part):
        assert_array_equal(out[part], expected[part])
        assert np.isnan(out[: part.start]).all()
        parts.append(part)

    net.loss_grad(w, x, y, None, out, ready)
    assert parts == [slice(block.start, block.stop) for block in reversed(net.blocks)]


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_blocks_tile_the_vector(model, signature):
    net = model.build(signature)
    assert net.blocks[0].start == 0
    assert [block.start for block in net.blocks[1:]] == [block.stop for block in net.blocks[:-1]]
    assert net.blocks[-1].stop == net.size
    assert [block.index for block in net.blocks] == list(range(len(net.blocks)))
    assert repr(net).startswith("Network([")


def test_gradient_with_respect_to_the_input():
    net = MLP((5, 4), "tanh", dtype="float64").build(MULTI)
    w = parameters(net)
    x, y = batch(MULTI, dtype="float64")

    def run(x):
        saved, h = [], x
        for block in net.blocks:
            h, kept = block.forward(w[block.start : block.stop], h)
            saved.append(kept)
        loss, _, d = net.loss.gradient(h, y, None, Workspace(np, "f8"))
        for block, kept in zip(reversed(net.blocks), reversed(saved), strict=True):
            d = block.backward(w[block.start : block.stop], kept, d, np.empty(block.stop - block.start))
        return loss, d

    _, dx = run(x)
    moved = x.copy()
    moved[2, 3] += 1e-6
    back = x.copy()
    back[2, 3] -= 1e-6
    assert_allclose(dx[2, 3], (run(moved)[0] - run(back)[0]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_two_batches_in_flight_do_not_disturb_each_other(model, signature):
    net = model.build(signature)
    w = parameters(net)
    outs = []
    for interleaved in (False, True):
        out = []
        batches = [batch(signature, seed=seed) for seed in (1, 2)]
        runs = [_steps(net, w, *each, out) for each in batches]
        if interleaved:
            for _ in zip(*runs, strict=True):
                pass
        else:
            for run in runs:
                list(run)
        outs.append(out)
    for first, second in zip(*outs, strict=True):
        assert_array_equal(first, second)


def _steps(net, w, x, y, out):
    """Go through forward and backward block by block, giving way after each."""
    g = np.empty(net.size, "f4")
    out.append(g)
    saved, work = [], Workspace(np, "f4")
    for block in net.blocks:
        x, kept = block.forward(w[block.start : block.stop], x, work)
        saved.append(kept)
        yield
    _, _, d = net.loss.gradient(x, y, None, work)
    for block in reversed(net.blocks):
        own = slice(block.start, block.stop)
        d = block.backward(w[own], saved.pop(), d, g[own], block.start > 0, work)
        yield


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_scratch_never_shows(model, signature):
    """Batches of changing length through one network give what fresh networks give, and results are not overwritten."""
    net = model.build(signature)
    w = parameters(net)
    kept = []
    for n in (9, 30, 1, 9, 0):
        x, y = batch(signature, n, seed=n)
        out, fresh = np.empty(net.size, "f4"), np.empty(net.size, "f4")
        sums = net.loss_grad(w, x, y, None, out)
        assert sums == model.build(signature).loss_grad(w, x, y, None, fresh)
        assert_array_equal(out, fresh)
        kept.append((net.scores(w, x), net.scores(w, x).copy(), x, x.copy(), y, y.copy()))
    for now, before, x, x_before, y, y_before in kept:
        assert_array_equal(now, before)
        assert_array_equal(x, x_before)
        assert_array_equal(y, y_before)


def test_copies_work_in_threads_at_once():
    net = MLP((16,), "tanh").build(MULTI)
    w = parameters(net)
    batches = [batch(MULTI, 64, seed) for seed in range(4)]
    expected = []
    for x, y in batches:
        expected.append(np.empty(net.size, "f4"))
        net.loss_grad(w, x, y, None, expected[-1])
    found = [np.empty((50, net.size), "f4") for _ in batches]

    def work(rank):
        own = copy.copy(net)
        for out in found[rank]:
            own.loss_grad(w, *batches[rank], None, out)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outs, one in zip(found, expected, strict=True):
        assert (outs == one).all()


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_pickle_carries_no_scratch(model, signature):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature, 500)
    before = len(pickle.dumps(net))
    out, again = np.empty(net.size, "f4"), np.empty(net.size, "f4")
    net.loss_grad(w, x, y, None, out)
    data = pickle.dumps(net)
    assert len(data) == before < 3000
    other = pickle.loads(data)
    assert isinstance(other, Network)
    other.loss_grad(w, x, y, None, again)
    assert_array_equal(out, again)


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_sparse_data_gives_the_same(model, signature):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature)
    x[x < 0.3] = 0
    dense, sparse = np.empty(net.size, "f4"), np.empty(net.size, "f4")
    assert_allclose(
        net.loss_grad(w, x, y, None, dense), net.loss_grad(w, scipy.sparse.csr_matrix(x), y, None, sparse), rtol=1e-6
    )
    assert_allclose(sparse, dense, rtol=1e-5, atol=1e-5)
    assert net.scores(w, scipy.sparse.csr_array(x)).dtype == np.float32
    assert_allclose(net.scores(w, scipy.sparse.csr_array(x)), net.scores(w, x), rtol=1e-5, atol=1e-5)


def test_float32_is_float32_all_the_way():
    for model, signature in CASES:
        net = model.build(signature)
        w, (x, _) = net.init(0), batch(signature)
        assert w.dtype == np.float32
        assert net.scores(w, x).dtype == np.float32
    assert LinearModel(dtype="float64").build(Signature(2)).init(0).dtype == np.float64


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
    assert total.shape == (5,)
    assert total.dtype == np.float64
    loss, score = net.summarise(total)
    out = np.empty(net.size, "f4")
    sums = net.loss_grad(w, x, y, weight, out)
    assert_allclose(loss, sums[0] / sums[1], rtol=1e-5)
    predicted = net.predict(w, x)
    if signature.task == "regression":
        flat = weight if y.ndim == 1 or weight is None else np.repeat(weight, y.shape[1])
        assert_allclose(score, r2_score(y.ravel(), predicted.ravel(), sample_weight=flat), rtol=1e-4)
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


def test_views_and_fortran_order_give_the_same():
    net = MLP((5,)).build(MULTI)
    w, (x, y) = parameters(net), batch(MULTI, 20)
    expected, out = np.empty(net.size, "f4"), np.empty(2 * net.size + 3, "f4")
    net.loss_grad(w, x[4:12], y[4:12], None, expected)
    part = out[3 : 3 + net.size]
    net.loss_grad(w, np.asfortranarray(x)[4:12], y[4:12], None, part)
    assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
