"""What a PyTorch module is given: several inputs, bytes, token numbers, and never the data itself to write to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional

from frameworks.torch_modules import CASES, COLUMNS, Case, N, built, made
from scaleml import TorchModel
from scaleml.api.trained_model import TrainedModel
from scaleml.models import Signature


def test_bfloat16_computes_in_less_and_keeps_parameters():
    network, x, y = built(CASES["convolutional"], compute="bfloat16")
    exact, _, _ = built(CASES["convolutional"])
    found = [np.empty(network.size, "f4") for _ in range(2)]
    for one, out in zip((network, exact), found, strict=True):
        one.loss_grad(one.init(0), x, y, None, out)
    assert not np.array_equal(*found)
    assert_allclose(found[0], found[1], rtol=0.1, atol=0.05)
    assert network.predict(network.init(0), x).dtype == np.int32


class Two(nn.Module):
    """Bytes and token numbers, of different lengths."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.head = nn.Linear(4 + 6, 2)

    def forward(self, pixels, tokens, mask):
        assert (pixels.dtype, tokens.dtype, mask.dtype) == (self.head.weight.dtype, torch.int64, torch.bool)
        return self.head(torch.cat([self.embed(tokens).sum(1), pixels.flatten(1) * ~mask[:, None]], 1))


@pytest.mark.parametrize("names", [("pixels", "tokens", "mask"), ("0", "1", "2")], ids=["by name", "by place"])
def test_several_inputs(names):
    row = np.dtype([(names[0], "u1", (2, 3)), (names[1], "i2", (5,)), (names[2], "?")], align=True)
    rng = np.random.default_rng(0)
    x = np.zeros(N, row)
    x[names[0]], x[names[1]] = rng.integers(0, 255, (N, 2, 3)), rng.integers(0, 9, (N, 5))
    x[names[2]] = rng.random(N) < 0.3

    def scaled(pixels, tokens, mask):
        return {"pixels": pixels / 255, "tokens": tokens, "mask": mask}

    y = rng.integers(0, 2, N).astype("f4")
    module = made(Case(Two))
    network = TorchModel(module, "cross_entropy", transform=scaled).build(Signature(12, row=row))
    out = np.empty(network.size, "f4")
    loss, _ = network.loss_grad(network.init(0), x, y, None, out)
    parts = [torch.tensor(np.array(x[name])) for name in names]
    output = module(parts[0].float() / 255, parts[1].long(), parts[2])
    expected = functional.cross_entropy(output, torch.tensor(y).long(), reduction="sum")
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    assert_allclose(out[-2:], module.head.bias.grad, rtol=1e-4)


def test_a_module_that_writes_into_its_input_leaves_the_data_alone():
    first = nn.Sequential(nn.Hardtanh(inplace=True), nn.Linear(COLUMNS, 3))
    network = TorchModel(first, "cross_entropy").build(Signature(COLUMNS, 3, "multiclass"))
    x, y = CASES["convolutional"].data(N)
    kept = x.copy()
    x.flags.writeable = False  # as a mapped file is: writing would end the process
    for _ in range(2):
        network.loss_grad(network.init(0), x, y.astype("i4"), None, np.empty(network.size, "f4"))
        network.predict(network.init(0), x)
    assert_array_equal(x, kept)


def test_predictions_of_reversed_columns():
    """Of images, a table and a data frame; with labels and without."""
    rng = np.random.default_rng(0)
    images, codes = rng.integers(0, 255, (12, 2, 6), "u1"), np.arange(12) % 3
    flat = nn.Sequential(nn.Flatten(), nn.Linear(COLUMNS, 3))
    signature = Signature(COLUMNS, 3, "multiclass", row=np.dtype(("u1", (2, 6))))
    network = TorchModel(made(Case(lambda: flat)), "cross_entropy").build(signature)
    model = TrainedModel(network, signature, network.init(0), np.arange(3))
    for x in (images[..., ::-1], images[::-1], images[::-2, :, ::-1]):
        plain = np.ascontiguousarray(x)
        assert_array_equal(model.predict(x), model.predict(plain))
        assert model.loss(x, codes[: len(x)][::-1]) == model.loss(plain, codes[: len(x)][::-1].copy())
    signature = Signature(COLUMNS, 3, "multiclass")
    network = TorchModel(made(Case(lambda: flat)), "cross_entropy").build(signature)
    model = TrainedModel(network, signature, network.init(0), np.arange(3))
    table = rng.standard_normal((12, COLUMNS)).astype("f4")[:, ::-1]
    expected = model.predict(np.ascontiguousarray(table))
    assert_array_equal(model.predict(table), expected)
    assert_array_equal(model.predict(pd.DataFrame(table[:, ::-1]).iloc[:, ::-1]), expected)


_FORWARDS = []


class Counted(nn.Linear):
    """Notes how many rows it is given at once."""

    def forward(self, x):
        _FORWARDS.append(len(x))
        return super().forward(x)


def test_predictions_of_many_rows_are_made_in_parts():
    network = TorchModel(Counted(COLUMNS, 3), "cross_entropy").build(Signature(COLUMNS, 3, "multiclass"))
    x, w = np.random.default_rng(0).standard_normal((2500, COLUMNS)).astype("f4"), network.init(0)
    _FORWARDS.clear()
    scores = network.module(w)(torch.from_numpy(x)).detach().numpy()
    assert_allclose(network.scores(w, x), scores, rtol=1e-5, atol=1e-6)
    assert_array_equal(network.predict(w, x), network.scores(w, x).argmax(1))
    assert network.predict_proba(w, x).shape == (2500, 3)
    assert network.predict(w, x[:0]).shape == (0,)
    assert max(_FORWARDS[1:]) <= 1024
