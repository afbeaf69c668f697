"""Trained models of modules in pickles: also of classes and functions that nobody can import."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from frameworks.torch_modules import COLUMNS
from scaleml import TorchModel
from scaleml.api.trained_model import TrainedModel
from scaleml.models import Signature


def loss_of_ones_own():
    return lambda output, y: nn.functional.cross_entropy(output, y, reduction="none")


@pytest.fixture
def model():
    """Made of a class, a factory, a loss and a transform that are in no module."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(COLUMNS), nn.Linear(COLUMNS, 3)

        def forward(self, x):
            return self.head(self.norm(x))

    own = TorchModel(Own, loss_of_ones_own(), transform=lambda x: x / 2, classifier=True)
    signature = Signature(COLUMNS, 3, "multiclass")
    network = own.build(signature)
    w, x, y = network.init(0), np.ones((4, COLUMNS), "f4"), np.zeros(4, "i4")
    network.loss_grad(w, x, y, None, np.empty(network.size, "f4"))  # which moves what the norm has seen
    return TrainedModel(network, signature, w, np.array(["a", "b", "c"]))


def test_pickles_and_copies(model, tmp_path):
    x = np.random.default_rng(0).standard_normal((9, COLUMNS)).astype("f4")
    joblib.dump(model, tmp_path / "model")
    others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(tmp_path / "model")]
    for other in others:
        assert_array_equal(other.decision_function(x), model.decision_function(x))
        assert torch.equal(other.module.norm.running_mean, model.module.norm.running_mean)
    others[1].params[:] = 0
    assert model.params.any()


def test_another_process_loads_it(model, tmp_path):
    x = np.random.default_rng(0).standard_normal((9, COLUMNS)).astype("f4")
    for name, one in {"model": model, "rows": x}.items():
        (tmp_path / name).write_bytes(pickle.dumps(one))
    load = "import pickle, sys; model, x = (pickle.load(open(name, 'rb')) for name in sys.argv[1:]); print(*model.predict(x))"
    command = [sys.executable, "-c", load, tmp_path / "model", tmp_path / "rows"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == model.predict(x).tolist()


@pytest.mark.parametrize("parametrised", [spectral_norm, weight_norm, orthogonal])
def test_parametrised_layers(parametrised):
    """Ranks, which have unpickled them, train them as PyTorch's own loop does."""
    torch.manual_seed(0)
    module = nn.Sequential(parametrised(nn.Linear(COLUMNS, 3)), nn.Tanh(), parametrised(nn.Linear(3, 3)))
    by_hand = copy.deepcopy(module).train()
    signature = Signature(COLUMNS, 3, "multiclass")
    network = pickle.loads(cloudpickle.dumps(TorchModel(module, "cross_entropy").build(signature)))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, COLUMNS)).astype("f4"), rng.integers(0, 3, 9).astype("i4")
    w, out = network.init(0), np.empty(network.size, "f4")
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.1)
    for _ in range(3):
        _, mass = network.loss_grad(w, x, y, None, out)
        w -= 0.1 * out / mass
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(torch.tensor(x)), torch.tensor(y).long()).backward()
        optimizer.step()
    assert_allclose(
        w, np.concatenate([one.detach().numpy().ravel() for one in by_hand.parameters()]), rtol=1e-4, atol=1e-5
    )
    found = pickle.loads(pickle.dumps(TrainedModel(network, signature, w))).module
    assert_allclose(found(torch.tensor(x)).detach(), by_hand.eval()(torch.tensor(x)).detach(), rtol=1e-4, atol=1e-5)


def test_a_factory_of_spectral_norm():
    """The vectors that it keeps are drawn anew, which is no matter."""
    network = TorchModel(lambda: spectral_norm(nn.Linear(COLUMNS, 3)), "cross_entropy").build(
        Signature(COLUMNS, 3, "multiclass")
    )
    assert not np.array_equal(network.init(0), network.init(1))
