"""PyTorch modules on real workers: they travel by value, and come back as plain modules."""

from __future__ import annotations

import pickle
import re
import weakref

import cloudpickle
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

import scaleml
from embedded import embedded
from frameworks.torch_modules import CASES, COLUMNS, perceptron
from runtime import harness
from scaleml import AllReduce, TorchModel
from scaleml.cluster import user_modules
from scaleml.data.sealed import seal
from scaleml.models import Signature

ROWS = 200
X, CODES = CASES["convolutional"].data(ROWS)
Y = np.array(["ant", "bee", "cow"])[CODES]


@pytest.fixture(scope="module")
def workers():
    return embedded(2)


def test_a_module_of_a_notebooks_cell(workers):
    """A class that no module knows, made by a closure: both travel by value."""

    class OfACell(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(COLUMNS, width), nn.BatchNorm1d(width))
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.body(x)))

    width = 8
    model = TorchModel(lambda: OfACell(width), "cross_entropy", transform=lambda x: x / 2)
    settings = {"strategy": AllReduce(), "batch_size": 20, "epochs": 2, "seed": 3}
    run = scaleml.train(model, X, Y, workers=2, validation=(X, Y), **settings)
    expected = harness.on_threads(model, X, Y, workers=2, validation=(X, Y), **settings)
    assert_array_equal(run.params, expected.params)
    assert run.history.evaluations["loss"][-1] < run.history.evaluations["loss"][0]
    module = run.last_model.module
    running = torch.cat([module.body[1].running_mean, module.body[1].running_var])
    assert_array_equal(running, expected.outcomes[0].buffers.values)
    assert module.body[1].num_batches_tracked == 20
    module = run.model.module
    assert type(module) is OfACell
    assert not module.training
    with torch.no_grad():
        output = module(torch.tensor(X) / 2)
    labels = np.array(["ant", "bee", "cow"])[output.argmax(1)]
    assert_array_equal(run.model.predict(X), labels)
    assert run.model.score(X, Y) == np.mean(labels == Y)
    np.testing.assert_allclose(run.model.predict_proba(X), output.softmax(1), rtol=1e-4)
    again = pickle.loads(cloudpickle.dumps(run.model))
    assert_array_equal(again.predict(X), labels)


def test_workers_are_asked_for_pytorch_before_a_run():
    """Whoever has none is then named, with what to install: `scaleml.cluster.user_modules`."""
    network = TorchModel(perceptron(), "cross_entropy").build(Signature(COLUMNS, 3, "multiclass"))
    assert "torch" in {name.partition(".")[0] for name in seal(max, network).modules}


def test_what_cannot_travel_is_refused_before_anything_is_placed(workers):
    class Waits(nn.Linear):
        def __init__(self):
            super().__init__(COLUMNS, 3)
            self.stream = (line for line in ())

        def __deepcopy__(self, memo):
            return self

    with pytest.raises(
        ValueError, match=r"module\.stream, a generator, cannot be sent to workers .*in forward, or leave it out"
    ):
        scaleml.train(TorchModel(Waits(), "cross_entropy"), X, Y, workers=2)


def test_weights_for_a_loss_of_all_rows_are_refused_before_anything_is_placed(workers):
    def loss(outputs, targets):
        return ((outputs[:, 0] - targets) ** 2).mean()

    model, weights = TorchModel(perceptron(1), loss), np.ones(ROWS)
    words = "rows have weights, but loss=loss returns one number for all rows: return a loss for each row"
    with pytest.raises(ValueError, match=words):
        scaleml.train(model, X, X[:, 0], sample_weight=weights, workers=2)
    with pytest.raises(ValueError, match=words):
        scaleml.train(model, X, X[:, 0], validation=(X, X[:, 0], weights), workers=2)


def test_a_rank_that_would_get_a_single_row_to_normalise_is_refused_before_it_is_placed(workers):
    normed = TorchModel(nn.Sequential(nn.Linear(COLUMNS, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "cross_entropy")
    with pytest.raises(
        ValueError,
        match=r"batch_size=66: .*rank 0's part of 2 rows, the last of an epoch of 200 rows, is 1 row",
    ):
        scaleml.train(normed, X, Y, workers=2, batch_size=66)
    with pytest.raises(ValueError, match=r"batch_size=2: the model normalises over a batch.*GroupNorm"):
        scaleml.train(normed, X, Y, workers=2, batch_size=2)
    images = nn.Sequential(nn.Unflatten(1, (3, 2, 2)), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(COLUMNS, 3))
    run = scaleml.train(TorchModel(images, "cross_entropy"), X, Y, workers=2, batch_size=66, epochs=1)
    assert run.state == "finished", "four pixels of one image are enough"


def test_an_error_in_a_modules_forward_names_what_it_was_given(workers):
    class Fails(nn.Linear):
        def forward(self, x):
            if len(x) == 10:
                raise KeyError("not there")
            return super().forward(x)

    with pytest.raises(
        scaleml.RunFailed, match=r"Fails raised KeyError: 'not there' .*on 10 rows of shape \(12,\) as float32"
    ):
        scaleml.train(TorchModel(Fails(COLUMNS, 3), "cross_entropy"), X, Y, workers=2, batch_size=20)


def test_a_linear_model_has_no_module(workers):
    run = scaleml.train(scaleml.LinearModel(), X, Y, workers=2, epochs=1)
    with pytest.raises(AttributeError, match="was made of no module"):
        _ = run.model.module


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "none",
            r"worker {other} cannot import torch \(No module named 'torch'\): install torch=={here} there, as it is",
        ),
        (
            "another",
            r"worker {other} has torch 1\.0\.0, this process {here}: install the same version on both: torch=={here}",
        ),
    ],
)
def test_a_worker_without_this_pytorch_is_named_at_once(workers, what, words, monkeypatch):
    """On one of two workers: nothing of it is found, or another version."""
    other = sorted(workers.scheduler_info(n_workers=-1)["workers"])[-1]
    monkeypatch.setattr(user_modules, "_known", weakref.WeakKeyDictionary())
    workers.run(spoil_pytorch, what, workers=[other])
    try:
        here = re.escape(user_modules.version_of("torch"))
        with pytest.raises(scaleml.RunFailed, match=words.format(other=other, here=here)):
            scaleml.train(TorchModel(perceptron(), "cross_entropy"), X, Y, workers=2)
    finally:
        workers.run(spoil_pytorch, "", workers=[other])


def spoil_pytorch(what: str) -> None:
    """On a worker: have PyTorch not be found, or say that it is another version; mend it with ""."""
    import importlib.metadata
    import importlib.util

    for module, name in ((importlib.util, "find_spec"), (importlib.metadata, "version")):
        real = getattr(module, name)
        setattr(module, name, getattr(real, "real", real))
    find, version = importlib.util.find_spec, importlib.metadata.version
    if what == "none":
        importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
        importlib.util.find_spec.real = find
    elif what == "another":
        importlib.metadata.version = lambda name: "1.0.0+cu118" if name == "torch" else version(name)
        importlib.metadata.version.real = version


spoil_pytorch.__module__ = "__main__"  # travels by value
