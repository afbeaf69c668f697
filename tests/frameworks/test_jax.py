"""Functions of JAX as flat models: against NumPy, PyTorch's losses and finite differences; keys, inputs and what newcomers get wrong."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import NamedTuple

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from frameworks.family import dense, jax_model, perceptron
from runtime import harness, reference
from runtime.test_strategies import close, made
from scaleml import MLP, SGD, JaxModel
from scaleml.data.sealed import seal
from scaleml.frameworks.jax_losses import JaxLoss
from scaleml.models import FlatModel, Signature
from scaleml.models.flat_model import Layered, NamesScore, OfModule, Probabilistic, Scoring, Stochastic
from scaleml.strategies import Serial

N, COLUMNS = 9, 7
CLASSES = Signature(COLUMNS, 3, "multiclass")
NUMBER = Signature(COLUMNS, 1, "regression")


def data(dtype="float64"):
    random = np.random.default_rng(5)
    return random.standard_normal((N, COLUMNS)).astype(dtype), random.integers(0, 3, N).astype("i4")


def test_a_perceptron_is_the_packages_own():
    """Loss, gradient, statistics and predictions in float64, though JAX's is switched off in this process."""
    (x, y), weights = data(), np.linspace(0, 2, N)
    signature = Signature(COLUMNS, 3, "multiclass", "float64")
    network, own = jax_model(dtype="float64").build(signature), MLP((6,), "tanh", dtype="float64").build(signature)
    assert [name for name, _ in network.named_parts] == ["first/bias", "first/kernel", "second/bias", "second/kernel"]
    w = network.init(0)
    layers = [w[part] for _, part in network.named_parts]
    theirs = np.concatenate([layers[number] for number in (1, 0, 3, 2)])
    out, expected = np.full(network.size, np.nan), np.empty(network.size)
    final = []
    assert network.loss_grad(w, x, y, weights, out, final.append) == pytest.approx(
        own.loss_grad(theirs, x, y, weights, expected)
    )
    assert final == [*reversed(network.parts)]
    grads = [out[part] for _, part in network.named_parts]
    assert_allclose(np.concatenate([grads[number] for number in (1, 0, 3, 2)]), expected, rtol=1e-9, atol=1e-14)
    assert_allclose(network.scores(w, x), own.scores(theirs, x), rtol=1e-9)
    assert_allclose(network.predict_proba(w, x), own.predict_proba(theirs, x), rtol=1e-9)
    found, right = (one.summarise(one.statistics(v, x, y, weights)) for one, v in ((network, w), (own, theirs)))
    assert found == pytest.approx(right)
    assert not jax.config.jax_enable_x64
    assert jax.tree.map(lambda one: str(one.dtype), network.module(w))["first"] == {
        "kernel": "float64",
        "bias": "float64",
    }


def test_the_contract():
    (x, y), network = data("float32"), jax_model().build(CLASSES)
    kinds = (FlatModel, Layered, Scoring, Probabilistic, NamesScore, OfModule, Stochastic)
    assert all(isinstance(network, kind) for kind in kinds)
    w, out, again = network.init(0), np.empty(network.size, "f4"), np.empty(network.size, "f4")
    kept = w.copy()
    network.loss_grad(w, x, y, None, out)
    assert_array_equal(w, kept, "the parameters are only read")
    for other in (pickle.loads(cloudpickle.dumps(network)), copy.copy(network)):
        other.loss_grad(w, x, y, None, again)
        assert_array_equal(again, out)
    w *= 0.5  # in the same memory: what JAX was given before must not be what it computes with now
    network.loss_grad(w, x, y, None, out)
    network.loss_grad(w.copy(), x, y, None, again)
    assert_array_equal(out, again)
    assert not np.allclose(kept, w)
    assert network.predict(w, x[:0]).shape == (0,)
    assert np.isnan(network.summarise(network.statistics(w, x[:0], y[:0]))).all()
    assert network.matrices == ((6, 7, 6), (51, 6, 3))
    assert "jax" in {name.partition(".")[0] for name in seal(max, network).modules}, (
        "workers are asked for JAX before a run"
    )


def test_a_run_is_sgd_written_by_hand():
    """Of batches of several sizes; the start is a function's of the run's seed."""
    x, y, _ = made("multiclass")

    def init(key):
        return {"bias": jnp.zeros(3), "kernel": jax.random.key_data(key).sum() * 1e-2 * jnp.ones((COLUMNS, 3))}

    def apply(params, x):
        return x @ params["kernel"] + params["bias"]

    model = JaxModel(apply, init, "cross_entropy", dtype="float64")
    found = harness.on_threads(
        model, x, y, strategy=Serial(), optimizer=SGD(0.1, momentum=0.9), shards=1, batch_size=250, epochs=2, seed=3
    )
    start = np.r_[np.full(COLUMNS * 3, 0.03), np.zeros(3)]
    expected = reference.serial(
        reference.Problem(x, y, (COLUMNS, 3), "multiclass", shards=1, seed=3), start, reference.Sgd(0.1, 0.9), 2, 250
    )
    close(np.r_[found.params[3:], found.params[:3]], expected)


LOSSES = {
    "cross_entropy": (4, True),
    "nll": (4, True),
    "binary_cross_entropy": (0, False),
    "mse": (0, False),
    "l1": (0, False),
    "huber": (0, False),
    "smooth_l1": (0, False),
}


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_pytorchs(weighted):
    torch = pytest.importorskip("torch")
    from scaleml.frameworks.torch_losses import TorchLoss

    random = np.random.default_rng(0)
    weights = np.linspace(0, 2, N).astype("f4") if weighted else None
    for name, (classes, whole) in LOSSES.items():
        output = 3 * random.standard_normal((N, 5, classes) if classes else (N, 5)).astype("f4")
        target = random.integers(0, classes or 2, (N, 5)).astype("i4" if whole else "f4")
        if whole:
            target[:, 0] = -100  # counts nowhere
        mine = JaxLoss.of(name)
        (loss, mass), grad = jax.jit(jax.value_and_grad(mine.total, has_aux=True))(output, target, weights)
        tensor = torch.tensor(output, requires_grad=True)
        other = torch.tensor(target).long() if whole else torch.tensor(target)
        rows = None if weights is None else torch.tensor(weights)
        moved = tensor.movedim(-1, 1) if whole else tensor
        expected, theirs = TorchLoss.of(name).total(moved, other, rows)
        expected.backward()
        assert float(loss) == pytest.approx(expected.item(), rel=1e-5), name
        assert float(mass) == pytest.approx(float(theirs), rel=1e-6)
        assert_allclose(grad, tensor.grad, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_class_that_there_is_not_is_no_number():
    loss = JaxLoss.of("cross_entropy")
    for code in (3, -1):
        assert np.isnan(loss.total(np.ones((2, 3), "f4"), np.array([0, code]), None)[0])


def column(params, x):
    return x @ params


def rows(outputs, y):
    return jnp.sum((outputs[:, 0] - y)[:, None] ** 2, axis=1)


def test_losses_of_ones_own():
    """A mean, a sum and a loss a row are told apart, and are the same to a run."""
    (x, _), kernel, found = data("float32"), np.ones((COLUMNS, 1), "f4"), []
    y = x[:, 0]
    for loss in (lambda o, y: rows(o, y).mean(), lambda o, y: rows(o, y).sum(), rows):
        network = JaxModel(column, kernel, loss).build(NUMBER)
        out = np.empty(network.size, "f4")
        found.append((*network.loss_grad(network.init(0), x, y, None, out), out))
        assert network.score_name == "R2"
    expected = 2 * x.T @ (x.sum(1) - y)
    for loss, mass, out in found:
        assert (loss, mass) == pytest.approx((((x.sum(1) - y) ** 2).sum(), N), rel=1e-5)
        assert_allclose(out, expected, rtol=1e-4)
    model = JaxModel(column, kernel, lambda o, y: rows(o, y).mean())
    with pytest.raises(ValueError, match=r"return a loss for each row.*or leave sample_weight out"):
        model.build(NUMBER).loss_grad(kernel[:, 0], x, y, np.ones(N), out)


def test_dropout_draws_by_seed_step_and_rank():
    def apply(params, x, key=None):
        if key is not None:
            x = x * jax.random.bernoulli(key, 0.5, x.shape)
        return x @ params

    (x, y), network = data("float32"), JaxModel(apply, np.eye(COLUMNS, 3, dtype="f4"), "cross_entropy").build(CLASSES)
    w = network.init(0)

    def gradient(*place, calls=1):
        out = np.empty(network.size, "f4")
        network.at(*place)
        for _ in range(calls):
            network.loss_grad(w, x, y, None, out)
        return out

    first = gradient(1, 2, 3)
    others = [gradient(*place) for place in ((1, 2, 4), (1, 3, 3), (2, 2, 3))] + [gradient(1, 2, 3, calls=2)]
    assert all(not np.array_equal(first, other) for other in others)
    assert_array_equal(gradient(1, 2, 3), first)
    assert_allclose(network.scores(w, x), x[:, :3], rtol=1e-6)


class Batch(NamedTuple):
    """What JAX takes for a pytree of its own accord."""

    table: object
    scale: object


@pytest.mark.parametrize("names", [("pixels", "tokens", "mask"), ("0", "1", "2")], ids=["by name", "by place"])
def test_several_inputs(names):
    """Bytes are floats, whole numbers token numbers of 32 bits, and never cut down in silence."""
    row = np.dtype([(names[0], "u1", (2, 3)), (names[1], "i8", (5,)), (names[2], "?")], align=True)
    random = np.random.default_rng(0)
    x = np.zeros(N, row)
    x[names[0]], x[names[1]] = random.integers(0, 255, (N, 2, 3)), random.integers(0, 4, (N, 5))
    x[names[2]] = random.random(N) < 0.3

    def apply(params, x):
        pixels, tokens, mask = (x["pixels"], x["tokens"], x["mask"]) if isinstance(x, dict) else x
        assert (pixels.dtype, tokens.dtype, mask.dtype) == (np.float32, np.int32, bool)
        return params.scale * (pixels / 255).sum((1, 2)) * ~mask + params.table[tokens].sum(1)

    network = JaxModel(apply, Batch(np.arange(4.0, dtype="f4"), np.float32(2)[None]), "mse").build(
        Signature(12, 1, "regression", row=row)
    )
    w = network.init(0)
    assert [name for name, _ in network.named_parts] == ["table", "scale"]
    expected = 2 * (x[names[0]] / 255).sum((1, 2)) * ~x[names[2]] + x[names[1]].sum(1)
    assert_allclose(network.predict(w, x), expected, rtol=1e-5)
    x[names[1]][0, 0] = 2**31
    with pytest.raises(ValueError, match=r"up to 2147483648.*dtype='float64'"):
        network.predict(w, x)


class Linen:
    """As a module of Flax looks."""

    def setup(self):
        """Is called by Flax."""

    def init(self, key):
        return {}

    def apply(self, variables, x):
        return x


class Transformed(NamedTuple):
    init: object
    apply: object


W = np.ones((COLUMNS, 3), "f4")

MADE = {
    "a module of Flax": (Linen(), {}, "mse", r"apply is a Linen, which has one.*module.apply.*of Flax as"),
    "a function of Haiku": (Transformed(len, len), W, "mse", "Haiku function takes its key second"),
    "a class": (Linen, W, "mse", "apply is the class Linen"),
    "a module that is a pytree": (jax.tree_util.Partial(column, W), W, "mse", "holds its parameters itself.*eqx.partition"),
    "a number": (3, W, "mse", "apply is a int: must be a function"),
    "a function among the parameters": (column, {"a": W, "f": jnp.tanh}, "mse", "has a .* at 'f'.*eqx.partition"),
    "a number among the parameters": (column, {"rate": 0.5}, "mse", "has a float at 'rate': all leaves are trained"),
    "whole numbers": (column, {"count": np.arange(3)}, "mse", "array of int64 at 'count'.*close over what is not trained"),
    "nothing to train": (column, {"a": {}}, "mse", "no arrays, so there is nothing to train"),
    "half precision": (column, W.astype("f2"), "mse", "'params' is float16, in which small updates are lost"),
    "double precision": (column, {"a": W.astype("f8")}, "mse", "'a' is float64, but dtype='float32': pass dtype='float64'"),
    "a factory that fails": (column, lambda: W, "mse", "<lambda> cannot make parameters of a key"),
    "an unknown loss": (column, W, "cros_entropy", "Did you mean 'cross_entropy'"),
    "an optimizer for a loss": (column, W, type("Sgd", (), {"init": 1, "update": 2, "__call__": len})(), "optimizer of Optax's"),
    "a number for a loss": (column, W, 3, "loss is a int: must be a name"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_is_no_model(name):
    apply, params, loss, words = MADE[name]
    with pytest.raises((TypeError, ValueError), match=f"(?s){words}"):
        JaxModel(apply, params, loss)


def branching(params, x):
    return x @ params if x.sum() > 0 else x @ -params


FIT = {
    "classes and outputs": (column, np.ones((COLUMNS, 5), "f4"), "cross_entropy", CLASSES, "outputs are 5, but y has 3 classes"),
    "classes, but numbers": (column, W, "mse", CLASSES, "is for numbers, but y holds labels"),
    "wrong columns": (column, W, "cross_entropy", Signature(5, 3, "multiclass"), r"given \(5, 5\) float32.*params of shape \(7, 3\)"),
    "a branch on values": (branching, W, "cross_entropy", CLASSES, "compiled by jax.jit: compute with jax.numpy"),
    "a tuple": (lambda p, x: (x @ p, x), W, "cross_entropy", CLASSES, "returns a tuple.*takes one array"),
    "a function of one row": (lambda p, x: (x @ p).sum(0), W, "cross_entropy", CLASSES, "jax.vmap"),
    "a loss that is a float": (column, W[:, :1], lambda o, y: float((o[:, 0] - y).mean()), NUMBER, "compute with jax.numpy alone"),
    "a loss of another length": (column, W[:, :1], lambda o, y: jnp.r_[o[:, 0], y], NUMBER, r"returns shape \(10,\) for 5 rows"),
    "broadcast to a matrix": (column, W[:, :1], lambda o, y: (o - y) ** 2, NUMBER, r"\(5, 5\).*Use outputs\[:, 0\]"),
    "broadcast and averaged": (column, W[:, :1], lambda o, y: ((o - y) ** 2).mean(), NUMBER, "which broadcast"),
    "a loss of whole numbers": (column, W, lambda o, y: o.argmax(1), NUMBER, "array of int32: return an array of floats"),
    "what does not travel": (column, W, "cross_entropy", CLASSES, "apply cannot be sent to workers"),
    "sparse rows": (column, W, "cross_entropy", Signature(COLUMNS, 3, "multiclass", sparse=True), r"pass X.toarray\(\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_what_does_not_fit(name):
    apply, params, loss, signature, words = FIT[name]
    if name == "what does not travel":
        lock = threading.Lock()
        apply = lambda params, x: x @ params if lock else x  # noqa: E731
    with pytest.raises(ValueError, match=f"(?s){words}"):
        JaxModel(apply, params, loss).build(signature)


def test_settings():
    assert (
        repr(JaxModel(perceptron, dense(7, 3), "mse", dtype="float64"))
        == "JaxModel(perceptron, ..., loss='mse', dtype='float64')"
    )
    assert JaxModel(column, W, "cross_entropy").is_classifier
    assert not JaxModel(column, W, rows).is_classifier
    assert JaxModel(column, W, rows, classifier=True).is_classifier
