"""Functions of JAX and Keras models on real workers: they travel by value, and come back as what the user knows.

And the pages of the documentation that show frameworks, all of them here: to import Keras takes six seconds, on each worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import documents
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


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras itself
def test_jax_and_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    for needed in ("jax", "torch", "keras"):
        pytest.importorskip(needed)
    embedded(2)  # the blocks find it
    names: dict[str, Any] = {"__name__": "__main__"}  # as in a notebook: what is defined travels by value
    for block in documents.blocks(documents.ROOT / "docs" / "jax-and-keras.md"):
        if block.language == "python":
            exec(block.code, names)
            run, X = names["run"], names["X"]
            assert run.model.score(X, names["y"]) > 0.8
            if "trained" in names:
                outputs = names["trained"].predict(X, verbose=0)
            elif "state" in names:
                outputs, _ = names["normalised"](*run.model.module, X)
            else:
                outputs = names["apply"](run.model.module, X)
            assert (outputs.argmax(1) == run.model.predict(X)).all()
    assert type(names["trained"]) is type(names["net"])
    assert "Halve" in {type(layer).__name__ for layer in names["trained"].layers}


def test_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    embedded(2)  # the blocks find it
    names: dict[str, Any] = {"__name__": "__main__"}  # as in a notebook
    for block in documents.blocks(documents.ROOT / "docs" / "pytorch.md"):
        exec(block.code, names)
        if "module" in names and "scored" not in names:
            with torch.no_grad():
                found = names["module"](torch.tensor(names["X"])).argmax(1).numpy()
            names["scored"] = (found == names["y"]).mean()
    assert names["scored"] > 0.9
    said = capsys.readouterr().out
    assert "tensor(29)" in said, "batches of 64 in 1,797 rows"
    assert "Linear does not take these rows: given 5 made-up rows of shape (1, 8, 8) as float32" in said


@pytest.mark.timeout(300)
def test_data_of_any_shape(run_page: Callable[..., str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("scaleml.frameworks.torch")
    probe = """
print("row", run.model.signature.row == np.dtype(("u1", (3, 8, 8))), several.model.signature.row.names)
print("ends", read.state, tokens["tokens"].shape, np.array_equal(predicted.compute(), there.model.predict(images)))
"""
    out = run_page("data-of-any-shape", probe)
    assert "row True ('image', 'age')" in out
    assert "ends finished (600, 11) True" in out
    assert out.count("True\n") >= 3


@pytest.mark.timeout(300)
def test_spmd(run_page: Callable[..., str]) -> None:
    pytest.importorskip("torch")
    probe = """
print("pi", [abs(result - np.pi) < 0.01 for result in results], results[0] == results[1])
model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
model.load_state_dict(state)
print("learnt", (model(X).argmax(1) == y).float().mean().item() > 0.9, nothing)
"""
    out = run_page("spmd", probe)
    assert "pi [True, True] True" in out
    assert "0 [1.5 1.5 1.5] {'weights': array([1., 1.]), 'step': 1} [array([0]), array([0, 1])]" in out
    assert "learnt True None" in out
    assert "[rank 1] rank 1 of 2 device 1" in out
    assert "\nTrue\n" in out
    assert "rank 1 on worker tls://" in out
    assert "caused by ValueError('no such column')" in out
