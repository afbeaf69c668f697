"""Keras models against the package's own perceptron and NumPy: on the backend of this process, and on the others in other processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec

import cloudpickle
import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from frameworks.keras_nets import BACKEND, CLASSES, COLUMNS, NUMBER, TWO, Half, N, data, net
from runtime import harness
from runtime.test_strategies import made
from scaleml import MLP, SGD, AllReduce, KerasModel
from scaleml.models import FlatModel, Signature
from scaleml.models.flat_model import Layered, NamesScore, OfModule, Probabilistic, Scoring
from scaleml.strategies import Serial

# Of Keras itself, under PyTorch and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


LOSSES = [
    (CLASSES, None, "cross_entropy"),
    (CLASSES, "softmax", "sparse_categorical_crossentropy"),
    (TWO, "sigmoid", keras.losses.BinaryCrossentropy()),
    (TWO, None, keras.losses.BinaryCrossentropy(from_logits=True)),
    (NUMBER, None, lambda y, outputs: keras.ops.square(y - outputs[:, 0]) / 2),
]


@pytest.mark.parametrize("case", (1,) if BACKEND == "jax" else range(len(LOSSES)))
def test_a_perceptron_is_the_packages_own(case):
    signature, last, loss = LOSSES[case]
    (x, y), weights = data(), np.linspace(0, 2, N).astype("f4")
    if signature.task != "multiclass":
        y = (y > 0).astype("f4")
    network = KerasModel(net(signature.n_outputs, last), loss).build(signature)
    own = MLP((6,), "tanh", "squared_error" if signature is NUMBER else "log_loss").build(signature)
    assert [name for name, _ in network.named_parts] == ["first/kernel", "first/bias", "second/kernel", "second/bias"]
    assert network.matrices == tuple(own.matrices)
    w, out, expected = network.init(0), np.empty(network.size, "f4"), np.empty(network.size, "f4")
    final = []
    found = network.loss_grad(w, x, y, weights, out, final.append)
    assert found == pytest.approx(own.loss_grad(w, x, y, weights, expected), rel=1e-4)
    assert final == [*reversed(network.parts)]
    assert_allclose(out, expected, rtol=2e-3, atol=1e-5)
    assert network.summarise(network.statistics(w, x, y)) == pytest.approx(
        own.summarise(own.statistics(w, x, y)), rel=1e-4
    )
    assert_array_equal(network.predict(w, x).round(4), own.predict(w, x).round(4))
    if signature is not NUMBER:
        assert_allclose(network.predict_proba(w, x), own.predict_proba(w, x), rtol=1e-3, atol=1e-5)


def test_normalisation_and_dropout():
    """Statistics are buffers, seeds are functions of the place, and the module that comes back has all of it."""
    (x, y), rate = data(), 0.5
    model = net(3, "softmax", keras.layers.BatchNormalization(momentum=0.9, name="norm"), keras.layers.Dropout(rate))
    first = model.layers[0]
    before = [np.array(one) for one in model.get_weights()]
    network = KerasModel(model, "sparse_categorical_crossentropy").build(CLASSES)
    kinds = (FlatModel, Layered, Scoring, Probabilistic, NamesScore, OfModule)
    assert all(isinstance(network, kind) for kind in kinds)
    w, start = network.init(0), network.first_buffers()
    assert_array_equal(start.values, np.r_[np.zeros(6), np.ones(6)])
    assert not len(start.counts), "seeds are none of them"

    def gradient(*place):
        out = np.empty(network.size, "f4")
        network.set_buffers(start)
        network.at(*place)
        network.loss_grad(w, x, y, None, out)
        return out

    one = gradient(1, 2, 3)
    assert not np.array_equal(one, gradient(1, 3, 3))
    assert_array_equal(gradient(1, 2, 3), one)
    kernel, bias = (np.array(value) for value in first.get_weights())
    hidden = np.tanh(x @ kernel + bias)
    assert_allclose(network.buffers().values[:6], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    for other in (pickle.loads(cloudpickle.dumps(network)), network):
        module = other.module(w)
        assert type(module) is keras.Sequential
        assert_allclose(module.get_layer("norm").moving_mean.numpy(), 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
        assert_allclose(other.predict_proba(w, x), module.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
    for value, kept in zip(model.get_weights(), before, strict=True):
        assert_array_equal(value, kept, "the user's own model is as it was")


def test_two_ranks_are_one_process():
    x, y, _ = made("multiclass", 600)
    model = KerasModel(net(3, None, Half()), "cross_entropy")
    one, two = (
        harness.on_threads(
            model, x, y, strategy=strategy, workers=workers, optimizer=SGD(0.2, momentum=0.9), shards=4, batch_size=100
        )
        for strategy, workers in ((Serial(), 1), (AllReduce(), 2))
    )
    assert_allclose(two.params, one.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [("pixels", "tokens"), ("0", "1")], ids=["by name", "by place"])
def test_several_inputs(names):
    """A functional model of bytes and token numbers, against NumPy's arithmetic."""
    random = np.random.default_rng(0)
    row = np.dtype([(names[0], "u1", (2, 3)), (names[1], "i8", (5,))], align=True)
    x, y = np.zeros(N, row), random.standard_normal(N).astype("f4")
    x[names[0]], x[names[1]] = random.integers(0, 255, (N, 2, 3)), random.integers(0, 4, (N, 5))
    pixels = keras.Input((2, 3), name="pixels")
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    flat = keras.layers.Rescaling(1 / 255)(keras.layers.Flatten()(pixels))
    words = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(4, 1, name="words")(tokens))
    output = keras.layers.Add()([keras.layers.Dense(1, name="dense")(flat), words])
    given = {"pixels": pixels, "tokens": tokens} if names[0] == "pixels" else [pixels, tokens]
    network = KerasModel(keras.Model(given, output), "mse").build(Signature(11, 1, "regression", row=row))
    places, w = dict(network.named_parts), network.init(0)
    kernel, bias, table = (w[places[name]] for name in ("dense/kernel", "dense/bias", "words/embeddings"))
    scaled = x[names[0]].reshape(N, 6) / 255
    outputs = scaled @ kernel + bias + table[x[names[1]]].mean(1)
    assert_allclose(network.predict(w, x), outputs, rtol=1e-4, atol=1e-5)
    out = np.full(network.size, np.nan, "f4")
    loss, mass = network.loss_grad(w, x, y, None, out)
    assert (loss, mass) == pytest.approx((((outputs - y) ** 2).sum(), N), rel=1e-4)
    apart = 2 * (outputs - y)
    assert_allclose(out[places["dense/kernel"]], scaled.T @ apart, rtol=1e-3, atol=1e-4)
    expected = [(apart * (x[names[1]] == word).mean(1)).sum() for word in range(4)]
    assert_allclose(out[places["words/embeddings"]], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="there nothing is said of pixels")
def test_it_is_known_whether_anything_scales_pixels():
    signature = Signature(48, 3, "multiclass", row=np.dtype(("uint8", (4, 4, 3))))
    last = keras.layers.Conv2D(3, 4), keras.layers.Flatten()
    for first, expected in (((), True), ((keras.layers.Rescaling(1 / 255),), False)):
        model = keras.Sequential([keras.Input((4, 4, 3)), *first, *last])
        assert KerasModel(model, "cross_entropy").build(signature).takes_as_it_is is expected


@pytest.mark.parametrize("rule", ["rank0", "local"])
def test_the_rule_of_buffers_is_the_networks(rule):
    assert KerasModel(net(), "cross_entropy", buffers=rule).build(CLASSES).buffer_rule == rule


@pytest.mark.skipif(BACKEND == "jax", reason="JAX itself has none unless it is switched on")
def test_double_precision_is_refused_where_keras_has_none():
    """On TensorFlow it has it."""
    dtype = {"dtype": "float64"}
    layers = [keras.layers.Dense(6, "tanh", **dtype), keras.layers.Dense(3, **dtype)]
    model = keras.Sequential([keras.Input((COLUMNS,), **dtype), *layers])
    if BACKEND != "tensorflow":
        assert keras.backend.result_type("float64", "float64") == "float32", "by Keras's own rule"
        with pytest.raises(ValueError, match=r"Keras's operations compute in float32.*TorchModel or JaxModel"):
            KerasModel(model, "cross_entropy")
        return
    signature = Signature(COLUMNS, 3, "multiclass", "float64")
    network, own = (
        KerasModel(model, "cross_entropy").build(signature),
        MLP((6,), "tanh", dtype="float64").build(signature),
    )
    (x, y), w, out, expected = data(), network.init(0), np.empty(network.size), np.empty(network.size)
    x = x.astype("f8") + 1e-9
    found = network.loss_grad(w, x, y, None, out)
    assert found == pytest.approx(own.loss_grad(w, x, y, None, expected), rel=1e-12)
    assert_allclose(out, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.skipif(BACKEND != "torch", reason="this is the other process")
@pytest.mark.parametrize(("backend", "count"), [("jax", 8), ("tensorflow", 12)])
def test_the_same_under_other_backends(backend, count):
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout
