"""Hints at what is allowed and hardly meant: pixels that nobody scales, outputs that are squashed twice. And where there is none."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from frameworks.torch_modules import COLUMNS, perceptron
from scaleml import JaxModel, TorchModel
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.data.collection_source import CollectionSource
from scaleml.data.partition import PassOptions
from scaleml.data.tensor_partition import write_tensor_partition
from scaleml.models import Signature

CLASSES = Signature(COLUMNS, 3, "multiclass")
TWO = Signature(COLUMNS, 1, "binary")
rng = np.random.default_rng(3)
IMAGES, LABELS = rng.integers(0, 256, (30, 3, 4, 4), dtype="uint8"), np.arange(30) % 3


class Scaled(nn.Module):
    """Scales in its forward, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(x.mul_(1 / 255))


class Tokens(nn.Module):
    """Bytes of text: what looks like pixels are numbers of rows of a table, or made one-hot."""

    def __init__(self, one_hot: bool = False) -> None:
        super().__init__()
        self.one_hot = one_hot
        self.table, self.head = nn.Embedding(256, 3), nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = x.flatten(1).long()
        return self.head(functional.one_hot(x, 256).float()).mean(1) if self.one_hot else self.table(x).mean(1)


def said(call: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(one.category is UserWarning and one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


def said_of(model: Any, x: Any, y: Any = LABELS) -> list[str]:
    def place() -> None:
        TrainingData(model, x, y, None, 0.2, 0).close()

    return said(place)


def conv(*first: nn.Module) -> TorchModel:
    return TorchModel(nn.Sequential(*first, nn.Conv2d(3, 3, 4), nn.Flatten()), "cross_entropy")


def plain(params: Any, x: Any) -> Any:
    return jnp.tanh(x.reshape(len(x), -1)) @ params if params is None else x.reshape(len(x), -1) @ params


def jaxed(function: Any = plain) -> JaxModel:
    return JaxModel(function, np.zeros((48, 3), "f4"), "cross_entropy")


UNSCALED: dict[str, tuple[Any, Any]] = {
    "a convolution": (conv(), IMAGES),
    "floats": (conv(), IMAGES.astype("f4")),
    "dropped": (
        TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), "cross_entropy", lambda x: x.flip(2)),
        IMAGES,
    ),
    "flat": (TorchModel(nn.Linear(48, 3), "cross_entropy"), IMAGES.reshape(30, 48)),
    "a dataset": (conv(), None),
    "JAX": (jaxed(), IMAGES),
    "JAX, compiled apart": (jaxed(jax.jit(plain)), IMAGES),
}
FINE: dict[str, tuple[Any, Any]] = {
    "a transform": (
        TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), "cross_entropy", lambda x: x / 255),
        IMAGES,
    ),
    "scaled in forward": (TorchModel(Scaled(), "cross_entropy"), IMAGES),
    "normalised first": (conv(nn.BatchNorm2d(3)), IMAGES),
    "tokens": (TorchModel(Tokens(), "cross_entropy"), IMAGES),
    "one-hot": (TorchModel(Tokens(one_hot=True), "cross_entropy"), IMAGES),
    "digits": (conv(), IMAGES // 16),
    "scaled floats": (conv(), IMAGES.astype("f4") / 255),
    "JAX scales": (jaxed(lambda params, x: plain(params, x / 255)), IMAGES),
}


class Items:
    """A dataset of the images."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return IMAGES[index], int(LABELS[index])


@pytest.mark.parametrize("case", UNSCALED)
def test_pixels_that_nothing_scales(case: str) -> None:
    model, x = UNSCALED[case]
    (one,) = said_of(model, Items() if x is None else x, None if x is None else LABELS)
    assert f"X holds whole numbers up to {IMAGES[0].max() if x is None else 255}, pixels it seems" in one
    assert one.endswith((model.how_to_scale, "transform= divide by 255, too, or divide X by 255"))


@pytest.mark.parametrize("case", FINE)
def test_no_word_of_pixels_that_are_scaled_or_are_none(case: str) -> None:
    assert said_of(*FINE[case]) == []


def test_pixels_of_dask_arrays_are_looked_at_where_they_lie(tmp_path: Path) -> None:
    options = PassOptions("token", "float32", True, 0, 0.2, "X")
    summary = write_tensor_partition(options, 0, 0, tmp_path, IMAGES, LABELS)
    assert summary.brightest == 255
    assert CollectionSource(Mock(summaries=[summary, replace(summary, brightest=3)]), options, False).brightest == 255


SQUASHED: dict[str, tuple[Any, Any, Signature, str]] = {
    "softmax": (nn.Softmax(1), "cross_entropy", CLASSES, "without its last softmax; run.model.predict_proba"),
    "sigmoid for classes": (
        nn.Sigmoid(),
        nn.CrossEntropyLoss(),
        CLASSES,
        "takes the softmax again.*without its last sigmoid",
    ),
    "softmax for nll": (
        nn.Softmax(1),
        "nll",
        CLASSES,
        "takes their logarithms.*use loss='cross_entropy'; or end in a log_softmax",
    ),
    "sigmoid": (
        nn.Sequential(nn.Sigmoid(), nn.Flatten(0)),
        "bce",
        TWO,
        "takes the sigmoid again.*without its last sigmoid",
    ),
    "hard sigmoid": (nn.Hardsigmoid(), nn.BCEWithLogitsLoss(), TWO, "takes the sigmoid again"),
}
UNSQUASHED: dict[str, tuple[Any, Any, Signature]] = {
    "log softmax": (nn.LogSoftmax(1), "nll", CLASSES),
    "log softmax for cross entropy": (nn.LogSoftmax(1), "cross_entropy", CLASSES),
    "tanh": (nn.Tanh(), "bce", TWO),
    "positive scores": (nn.ReLU(), "bce", TWO),
    "probabilities as numbers": (nn.Sigmoid(), "mse", Signature(COLUMNS, 1, "regression")),
}


@pytest.mark.parametrize("case", SQUASHED)
def test_outputs_that_are_squashed_twice(case: str) -> None:
    last, loss, signature, words = SQUASHED[case]
    with pytest.warns(UserWarning, match=f"Sequential returns probabilities.*{words}"):
        TorchModel(nn.Sequential(perceptron(signature.n_outputs), last), loss).build(signature)


@pytest.mark.parametrize("case", UNSQUASHED)
def test_no_word_of_outputs_that_fit(case: str) -> None:
    last, loss, signature = UNSQUASHED[case]
    assert said(lambda: TorchModel(nn.Sequential(perceptron(signature.n_outputs), last), loss).build(signature)) == []


def test_outputs_of_jax_functions() -> None:
    def built(last: Any, loss: str = "cross_entropy", outputs: int = 3) -> list[str]:
        signature = CLASSES if outputs == 3 else TWO
        model = JaxModel(lambda params, x: last(x @ params), np.zeros((COLUMNS, outputs), "f4"), loss)
        return said(lambda: model.build(signature))

    (softmax,), (sigmoid,) = built(jax.nn.softmax), built(lambda z: jax.jit(jax.nn.sigmoid)(z)[:, 0], "bce", 1)
    assert (
        "returns probabilities, by its last softmax, of which loss='cross_entropy' takes the softmax again" in softmax
    )
    assert (
        "returns probabilities, by its last sigmoid, of which loss='binary_cross_entropy' takes the sigmoid again"
        in sigmoid
    )
    assert "takes their logarithms" in built(jax.nn.softmax, "nll")[0]
    assert (
        built(jax.nn.log_softmax, "nll") == built(lambda z: 2 * jax.nn.sigmoid(z)) == built(lambda z: z / z.sum()) == []
    )
