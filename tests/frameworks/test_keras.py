"""Keras models as flat models: how they are made, what they are compiled with, and what newcomers get wrong."""

from __future__ import annotations

import pickle
import threading

import cloudpickle
import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from frameworks.keras_nets import BACKEND, CLASSES, COLUMNS, TWO, Half, data, net
from scaleml import KerasModel
from scaleml.data.sealed import seal
from scaleml.models import Signature

# Of Keras itself, under PyTorch and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_weights_are_those_of_the_model_or_drawn_under_the_seed():
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    places = []
    normed = lambda: net(3, None, keras.layers.BatchNormalization())  # noqa: E731
    for source in (unbuilt, normed):
        network = KerasModel(source, "cross_entropy").build(CLASSES)
        assert_array_equal(network.init(1), network.init(1))
        assert not np.array_equal(network.init(1), network.init(2))
        again = pickle.loads(cloudpickle.dumps(network))
        assert_array_equal(again.init(1), network.init(1))
        again.set_buffers(network.first_buffers())  # whatever Keras calls the layers of this copy
        places.append([name.rpartition("/")[2] for name, _ in network.named_parts])
    assert places == [["kernel", "bias"], ["kernel", "bias", "gamma", "beta", "kernel", "bias"]]
    assert not unbuilt.built
    model = net()
    same = KerasModel(model, "cross_entropy")
    first = same.build(CLASSES).init(0)
    assert_array_equal(first, same.build(CLASSES).init(7))
    model.set_weights([np.array(one) + 1 for one in model.get_weights()])
    assert_allclose(same.build(CLASSES).init(0), first + 1, rtol=1e-6)


def test_workers_are_asked_for_keras_before_a_run():
    network = KerasModel(net(3, None, Half()), "cross_entropy").build(CLASSES)
    assert {BACKEND, "keras"} <= {name.partition(".")[0] for name in seal(max, network).modules}


def test_what_is_not_trainable_is_not_trained():
    model = net()
    model.layers[0].trainable = False
    network = KerasModel(model, "cross_entropy").build(CLASSES)
    assert [name for name, _ in network.named_parts] == ["second/kernel", "second/bias"]
    w = network.init(0) + 1
    assert_array_equal(network.module(w).layers[0].get_weights()[0], model.layers[0].get_weights()[0])


def compiled(loss):
    model = net(3, "softmax" if loss == "sparse_categorical_crossentropy" else None)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def test_the_compiled_loss_serves():
    assert repr(KerasModel(compiled("mse"))) == "KerasModel(Sequential, loss='mse')"
    assert KerasModel(compiled("sparse_categorical_crossentropy")).is_classifier
    assert not KerasModel(compiled("mse"), keras.losses.MeanSquaredError()).is_classifier
    huber = KerasModel(net(), keras.losses.Huber(0.5))._loss
    assert (huber.name, huber.settings) == ("huber", {"delta": 0.5})
    assert KerasModel(net(), keras.losses.Poisson(), classifier=True).is_classifier


class Needs(keras.Model):
    """A model that its configuration cannot make again."""

    def __init__(self, lock):
        super().__init__()
        self.lock, self.head = lock, keras.layers.Dense(3)

    def call(self, x):
        return self.head(x)


MADE = {
    "a layer": (lambda: keras.layers.Dense(3), "mse", r"model is a layer, Dense: pass keras.Sequential"),
    "an optimizer": (keras.optimizers.SGD, "mse", "pass the model; the optimizer is train's"),
    "a number": (lambda: 3, "mse", "model is a int: must be a keras.Model"),
    "a factory of something else": (lambda: lambda: 3, "mse", "returns a int, but a factory has to return a keras.Model"),
    "a factory of one thing": (lambda: keras.Sequential, None, "loss is missing, and the model was compiled with none"),
    "a factory with arguments": (lambda: lambda width: net(), "mse", "cannot be called without arguments"),
    "no loss": (net, None, "loss is missing, and the model was compiled with none"),
    "two losses": (lambda: compiled("mse"), "huber", "loss='huber', but the model was compiled with loss='mse': leave out one"),
    "an unknown loss": (net, "cros_entropy", "Did you mean 'cross_entropy'"),
    "a class for a loss": (net, keras.losses.MeanSquaredError, "is a class: call it"),
    "an optimizer for a loss": (net, keras.optimizers.SGD(), "loss is an optimizer of Keras's"),
    "a sum": (net, keras.losses.MeanSquaredError(reduction="sum"), "leave reduction out"),
    "smoothed": (net, keras.losses.CategoricalCrossentropy(label_smoothing=0.1), "has settings that are not known here"),
    "several losses": (net, ["mse", "mse"], "of a model of several outputs a function of all"),
    "no configuration": (lambda: Needs(threading.Lock()), "mse", "cannot be made by its configuration.*pass a factory"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_is_no_model(name):
    make, loss, words = MADE[name]
    with pytest.raises((TypeError, ValueError), match=f"(?s){words}"):
        KerasModel(make(), loss)


def regularised():
    return keras.Sequential([keras.Input((COLUMNS,)), keras.layers.Dense(3, kernel_regularizer="l2")])


def frozen():
    model = net()
    model.trainable = False
    return model


def factory_with_a_lock():
    lock = threading.Lock()
    return lambda: net() if lock else None


def images():
    return keras.Sequential([keras.layers.Conv2D(2, 3)])


FIT = {
    "scores for probabilities": (net, "sparse_categorical_crossentropy", CLASSES, "activation='softmax', or use loss='cross_entropy'"),
    "probabilities for scores": (lambda: net(3, "softmax"), "cross_entropy", CLASSES, "use loss='sparse_categorical_crossentropy'"),
    "one probability for a score": (lambda: net(1, "sigmoid"), "binary_cross_entropy", TWO, "use loss='binary_crossentropy'"),
    "classes and outputs": (lambda: net(5), "cross_entropy", CLASSES, "outputs are 5, but y has 3 classes"),
    "wrong columns": (net, "cross_entropy", Signature(5, 3, "multiclass"), r"does not take these.*is first/kernel of shape \(7, 6\)"),
    "losses of layers": (regularised, "cross_entropy", CLASSES, "add losses of their own.*weight decay"),
    "nothing to train": (frozen, "cross_entropy", CLASSES, "nothing to train: set trainable=True"),
    "sparse rows": (net, "cross_entropy", Signature(COLUMNS, 3, "multiclass", sparse=True), r"pass X.toarray\(\)"),
    "what does not travel": (factory_with_a_lock, "cross_entropy", CLASSES, "model cannot be sent to workers"),
    "not built": (images, "cross_entropy", CLASSES, "cannot be built on rows of X"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_what_does_not_fit(name):
    make, loss, signature, words = FIT[name]
    with pytest.raises(ValueError, match=f"(?s){words}"):
        KerasModel(make(), loss).build(signature)


class Gated(keras.Model):
    """Whose last layer is no output."""

    def __init__(self):
        super().__init__()
        self.out, self.gate = keras.layers.Dense(3), keras.layers.Dense(3, "sigmoid")

    def call(self, x):
        return self.out(x) * self.gate(x)


def test_a_sigmoid_inside_squashes_no_outputs():
    KerasModel(Gated, "cross_entropy").build(CLASSES)


def test_a_process_has_one_backend():
    from scaleml.frameworks.keras_backend import Backend, loaded

    other = "jax" if BACKEND == "torch" else "torch"
    with pytest.raises(
        RuntimeError, match=f"this process has loaded Keras with '{BACKEND}'.*set KERAS_BACKEND={other} for all workers"
    ):
        pickle.loads(pickle.dumps(Backend(other)))
    assert loaded(BACKEND) is keras


def test_other_places_for_a_keras_model():
    pytest.importorskip("torch")
    from scaleml import TorchModel, train

    with pytest.raises(TypeError, match=r"pass it as scaleml\.KerasModel"):
        TorchModel(net(), "cross_entropy")
    with pytest.raises(TypeError, match=r"model is of Keras, a Sequential: .*scaleml\.KerasModel\(model"):
        train(net(), *data())
