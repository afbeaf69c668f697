"""Functions of JAX and Keras models on real workers: they travel by value, and come back as what the user knows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import scaleml
from embedded import embedded
from runtime import harness
from runtime.test_strategies import made
from scaleml import AllReduce
from scaleml.data.sealed import seal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras itself

X, CODES, _ = made("multiclass", 200)
X = X.astype("f4")
Y = np.array(["ant", "bee", "cow"])[CODES]
SETTINGS = {"strategy": AllReduce(), "batch_size": 20, "epochs": 2, "seed": 3}


@pytest.fixture(scope="module")
def workers():
    return embedded(2)


def trained(model):
    run = scaleml.train(model, X, Y, workers=2, validation=(X, Y), **SETTINGS)
    assert_array_equal(run.params, harness.on_threads(model, X, Y, workers=2, **SETTINGS).params)
    assert run.history.evaluations["loss"][-1] < run.history.evaluations["loss"][0]
    return run.model


def test_a_function_of_jax_of_a_notebooks_cell(workers):
    """Functions that no module knows: they travel by value, and with them what they close over."""
    jax = pytest.importorskip("jax")
    width, scale = 5, np.float32(0.5)

    def init(key):
        first, second = jax.random.split(key)
        return {"in": jax.random.normal(first, (7, width)) / 3, "out": jax.random.normal(second, (width, 3)) / 3}

    def apply(params, x):
        return jax.numpy.tanh(x * scale @ params["in"]) @ params["out"]

    model = trained(scaleml.JaxModel(apply, init, "cross_entropy"))
    params = model.module
    assert {name: one.shape for name, one in params.items()} == {"in": (7, 5), "out": (5, 3)}
    outputs = np.asarray(apply(params, X))
    assert_array_equal(model.predict(X), np.array(["ant", "bee", "cow"])[outputs.argmax(1)])
    assert_allclose(model.predict_proba(X), jax.nn.softmax(outputs, axis=1), rtol=1e-4, atol=1e-6)
    assert "jax" in {name.partition(".")[0] for name in seal(max, model.network).modules}, "workers are asked for JAX"


def test_a_keras_model_with_a_layer_of_a_notebooks_cell(workers):
    """The worker's Keras has the backend of the model, and the layer's class comes along."""
    keras = pytest.importorskip("keras")

    class Squash(keras.layers.Layer):
        def __init__(self, slope=1.0, **settings):
            super().__init__(**settings)
            self.slope = slope

        def call(self, x):
            return keras.ops.tanh(self.slope * x)

        def get_config(self):
            return {**super().get_config(), "slope": self.slope}

    layers = [keras.layers.Dense(6, name="first"), Squash(0.5), keras.layers.Dense(3, activation="softmax")]
    net = keras.Sequential([keras.Input((7,)), *layers])
    net.compile("adam", "sparse_categorical_crossentropy")
    before = [np.array(one) for one in net.get_weights()]
    model = trained(scaleml.KerasModel(net))
    module = model.module
    assert type(module) is keras.Sequential
    assert module.layers[1].slope == 0.5
    outputs = module.predict(X, verbose=0)
    assert_allclose(model.predict_proba(X), outputs, rtol=1e-4, atol=1e-6)
    assert_array_equal(model.predict(X), np.array(["ant", "bee", "cow"])[outputs.argmax(1)])
    for one, kept in zip(net.get_weights(), before, strict=True):
        assert_array_equal(one, kept, "the user's own model is as it was")
    assert "keras" in {name.partition(".")[0] for name in seal(max, model.network).modules}
