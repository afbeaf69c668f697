"""Trained models of modules in pickles: also of classes and functions that nobody can import."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

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
