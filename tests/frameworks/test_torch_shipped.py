"""Shipped models on data of their own shape: images and sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scaleml import datasets
from scaleml.data.tensors import as_tensors
from scaleml.frameworks.residual_network import ResidualNetwork
from scaleml.frameworks.suited import suited
from scaleml.frameworks.text_classifier import TextClassifier
from scaleml.models import LinearModel, Signature
from scaleml.optim import Adam

IMAGES = np.dtype(("u1", (3, 8, 8)))
TEXTS = np.dtype([("tokens", "i4", (5,)), ("lengths", "i4")], align=True)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digit_images")


@pytest.mark.parametrize(("blocks", "layers"), [(1, 8), (2, 14)])
def test_a_residual_network_has_the_layers_that_its_paper_counts(blocks, layers):
    network = ResidualNetwork(8, blocks=blocks).build(Signature(192, 10, "multiclass", row=IMAGES))
    module = network.module(network.init(0))
    counted = [one for one in module.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    assert len([one for one in counted if getattr(one, "kernel_size", None) != (1, 1)]) == layers
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    two = ResidualNetwork(8).build(Signature(192, 1, "binary", row=IMAGES))
    assert two.module(two.init(0))(torch.zeros(3, 3, 8, 8)).shape == (3, 2)


def test_bytes_are_brought_to_minus_one_to_one():
    bytes_, floats = (
        ResidualNetwork(4).build(Signature(192, 3, "multiclass", row=row))
        for row in (IMAGES, np.dtype(("f4", (3, 8, 8))))
    )
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8)).astype("u1")
    w = bytes_.init(1)
    np.testing.assert_allclose(
        bytes_.scores(w, x), floats.scores(w, (x / 127.5 - 1).astype("f4")), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_parts_of_a_batch_of_images_add_up_where_nothing_is_normalised_over_it(digits, norm):
    network = ResidualNetwork(4, norm=norm).build(Signature(64, 10, "multiclass", row=np.dtype(("u1", (1, 8, 8)))))
    w, (whole, first, second) = network.init(0), np.empty((3, network.size), "f4")
    x, y = digits.X[:40], digits.y[:40].astype("i4")
    for rows, out in ((slice(0, 40), whole), (slice(0, 16), first), (slice(16, 40), second)):
        network.loss_grad(w, x[rows], y[rows], None, out)
    assert np.allclose(first + second, whole, rtol=1e-3, atol=1e-3 * abs(whole).max()) == (norm == "group")


def test_what_stands_after_a_text_has_ended_does_not_count():
    network = TextClassifier(vocabulary=50).build(Signature(6, 3, "multiclass", row=TEXTS))
    random = np.random.default_rng(0)
    x = np.zeros(8, TEXTS)
    x["tokens"], x["lengths"] = random.integers(1, 50, (8, 5)), random.integers(1, 5, 8)
    other, w = x.copy(), network.init(0)
    beyond = np.arange(5) >= x["lengths"][:, None]
    other["tokens"] = np.where(beyond, 7, x["tokens"])
    assert (other["tokens"] != x["tokens"]).any()
    np.testing.assert_array_equal(network.scores(w, other), network.scores(w, x))
    vectors = network.module(w).embedding.weight.detach().numpy()[x["tokens"]]
    mean = [vector[:length].mean(0) for vector, length in zip(vectors, x["lengths"], strict=True)]
    with torch.no_grad():
        expected = network.module(w).head(torch.tensor(np.array(mean))).numpy()
    np.testing.assert_allclose(network.scores(w, x), expected, rtol=1e-4, atol=1e-6)


def test_sentences_of_packages_can_be_told_apart():
    data = datasets.load("docstrings")
    assert {name: part.shape for name, part in data.X.items()} == {
        "tokens": (len(data.y), 32),
        "lengths": (len(data.y),),
    }
    assert np.unique(data.y).tolist() == ["dask", "numpy", "pandas", "scikit-learn", "scipy"]
    assert np.unique(data.y, return_counts=True)[1].min() > 500
    x, y = (
        as_tensors(data.X, "X", "float32").take(slice(0, None)),
        np.unique(data.y, return_inverse=True)[1].astype("i4"),
    )
    network = suited(data.X).build(Signature(33, 5, "multiclass", row=x.dtype))
    w, g, adam, random = network.init(0), np.empty(network.size, "f4"), Adam(0.003), np.random.default_rng(0)
    state = adam.init(network.size, "f4")
    for step in range(1, 121):
        batch = random.integers(0, 5000, 128)
        network.loss_grad(w, x[batch], y[batch], None, g)
        g /= 128
        adam.apply(w, g, state, step)
    held_out = network.summarise(network.statistics(w, x[5000:], y[5000:]))[1]
    assert held_out > 0.4, "chance is 0.2"


@pytest.mark.parametrize(
    ("model", "row", "words"),
    [
        (ResidualNetwork(), None, "192 columns, but a ResidualNetwork takes images"),
        (ResidualNetwork(), np.dtype(("u1", (8, 8))), r"rows of shape \(8, 8\), but a ResidualNetwork takes images"),
        (TextClassifier(), None, "192 columns, but a TextClassifier takes a dict of 'tokens'"),
        (TextClassifier(), np.dtype(("i4", (5,))), "a TextClassifier takes a dict of 'tokens'"),
    ],
)
def test_other_data_is_refused(model, row, words):
    with pytest.raises(ValueError, match=words):
        model.build(Signature(192, 3, "multiclass", row=row))


def test_settings_and_which_data_is_for_what():
    with pytest.raises(ValueError, match="width=10: must be a multiple of 4"):
        ResidualNetwork(10)
    with pytest.raises(ValueError, match="norm='layer'"):
        ResidualNetwork(norm="layer")
    with pytest.raises(ValueError, match="hidden=0"):
        TextClassifier(hidden=0)
    assert repr(ResidualNetwork(8, norm="batch")) == "ResidualNetwork(width=8, norm='batch')"
    assert suited(np.zeros((3, 1, 8, 8))) == ResidualNetwork()
    assert suited({"tokens": 0, "lengths": 0}) == TextClassifier()
    assert suited(np.zeros((3, 8))) is suited({"left": 0}) is None
    assert LinearModel().takes_any_shape is False
