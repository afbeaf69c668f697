"""PyTorch modules on GPUs, stood in for, against the same run on the processor: the same arithmetic, so the same bits."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

pytest.importorskip("torch")

import torch
from torch import nn

from devices.conftest import X, both, gpus
from devices.test_choice import chosen, sees
from devices.test_strategies import same
from devices.test_waits import waits_in_steps
from devices.torch_stand_in import Meta, There, placed
from frameworks.conftest import one_thread
from frameworks.torch_modules import CASES, N, built, made, signature
from scaleml import TorchModel
from scaleml.arrays import to_numpy
from scaleml.compression import PowerSGD, TopK
from scaleml.frameworks import residual_network, text_classifier, torch_device
from scaleml.frameworks.torch_random import drawing
from scaleml.frameworks.torch_refusal import why_refused
from scaleml.models import Signature
from scaleml.optim import Adam
from scaleml.strategies import AllReduce, Gossip, LocalSGD, ParameterServer, Serial

__all__ = ["one_thread"]


def normed():
    layers = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("strategy", "apart"),
    [
        (Serial(), True),
        (AllReduce(), True),
        (AllReduce(), False),
        (AllReduce(overlap=True), True),
        (AllReduce(compression=TopK(0.3)), False),
        (AllReduce(compression=PowerSGD(1)), True),
        (LocalSGD(2), True),
        (Gossip(), False),
        (ParameterServer("bsp"), True),
    ],
    ids=repr,
)
def test_the_same_run(cupy, strategy, apart):
    cpu, gpu = both(strategy, There(TorchModel(normed, "cross_entropy")), apart=apart)
    same([cpu, gpu])
    for ours, theirs in zip(gpu.outcomes, cpu.outcomes, strict=True):
        if theirs.buffers is not None:
            assert_array_equal(ours.buffers.values, theirs.buffers.values)
            assert ours.buffers.counts.tolist() == theirs.buffers.counts.tolist() != [0]
    assert cupy.cuda.kernels["dlpack"] > 16
    assert not cupy.cuda.pinned


@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), AllReduce(overlap=True), LocalSGD(3)], ids=repr)
@pytest.mark.parametrize(
    "loss", ["cross_entropy", nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))], ids=["", "class weights"]
)
def test_nobody_waits(cupy, strategy, loss):
    model, apart = There(TorchModel(normed, loss)), strategy != Serial()
    for more in ({}, {"sample_weight": np.full(96, 2.0)}):
        assert waits_in_steps(cupy, strategy, model, apart=apart, optimizer=Adam(0.01), **more) == {}


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(torch.tensor([0.0, 2.0, 1.0])),
        lambda output, y: output.logsumexp(1) - output.gather(1, y[:, None])[:, 0],
    ],
    ids=["ignored", "class weights", "a loss a row"],
)
@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp")], ids=repr)
def test_rows_that_weigh_nothing(cupy, strategy, loss):
    """Of batches of two rows some have none that counts: no update is made of these."""
    model = There(TorchModel(lambda: nn.Linear(6, 3), loss, classifier=True))
    same(both(strategy, model, batch_size=2, epochs=1, part_rows=1 if strategy.synchronous else None))
    weights = None if isinstance(loss, nn.Module) else np.arange(96) % 3
    same(both(strategy, model, batch_size=2, epochs=1, sample_weight=weights))


@pytest.mark.parametrize("name", [name for name in CASES if name != "tied"])  # "meta" unties
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
def test_nothing_stays_behind_and_nothing_is_looked_at(cupy, name, weighted):
    network, x, y = built(CASES[name])
    network.place = lambda array: Meta()
    there = [cupy.asarray(one) for one in (network.init(0), x, y, np.empty(network.size, "f4"))]
    network.loss_grad(*there[:3], cupy.asarray(np.ones(N, "f4")) if weighted else None, there[3])


@pytest.mark.parametrize("shipped", ["texts", "images"])
def test_several_inputs_and_other_dtypes(cupy, shipped):
    """Records come from the processor's memory, field by field; bytes and token numbers become what layers take there."""
    random = np.random.default_rng(0)
    if shipped == "texts":
        row = np.dtype([("tokens", "i4", (5,)), ("lengths", "i8")])
        x = np.zeros(12, row)
        x["tokens"], x["lengths"] = random.integers(0, 9, (12, 5)), random.integers(1, 6, 12)
        model = text_classifier.TextClassifier(vocabulary=9)
    else:
        row = np.dtype(("u1", (3, 8, 8)))
        x = random.integers(0, 256, (12, 3, 8, 8)).astype("u1")
        model = residual_network.ResidualNetwork(width=4)
    network = model.build(Signature(5, 3, "multiclass", row=row))
    network.place = placed
    y = random.integers(0, 3, 12).astype("i4")
    found = []
    cupy.cuda.Stream(non_blocking=True).use()
    for put in (lambda one: one, lambda one: one if one.dtype.names else cupy.asarray(one)):
        w, out, own = put(network.init(0)), put(np.empty(network.size, "f4")), copy.copy(network)
        totals = [float(one) for one in own.loss_grad(w, put(x), put(y), None, out)]
        sums = own.statistics(w, put(x), put(y), None)
        buffers = own.buffers()
        own.release()
        host = own.predict_proba(network.init(0), x)  # by the buffers that were there
        found.append([totals, sums, buffers.values, own.buffers().values, own.predict(w, put(x)), host, to_numpy(out)])
    for ours, theirs in zip(*found, strict=True):
        assert_array_equal(ours, theirs)


def test_a_gpu_draws_by_its_own_generator():
    generator = torch.Generator().manual_seed(3)
    before, drawn = generator.get_state(), []
    for draws in ("torch", "all"):
        with drawing(draws, 11, [generator]):
            drawn.append(torch.rand(4, generator=generator))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(generator.get_state(), before)


class Places(nn.Module):
    """Adds what it makes on the processor, wherever its rows are."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x + self.embed(torch.zeros(len(x), dtype=torch.long)))


def test_a_module_that_cannot_leave_the_processor():
    network = TorchModel(Places, "cross_entropy").build(Signature(6, 3, "multiclass"))
    both_see = [sees("x"), sees("y")]
    assert chosen("auto", both_see, model=network) == ()
    with pytest.raises(ValueError, match=r"device='cuda', but Places makes tensors that stay on the CPU \(embedding"):
        chosen("cuda", both_see, model=network)
    for case in CASES.values():
        assert TorchModel(made(case), case.loss).build(signature(case)).why_no_gpu() == ""


def test_a_loss_that_cannot_leave_the_processor():
    shares = torch.tensor([0.2, 0.3, 0.5])
    network = TorchModel(nn.Linear(6, 3), lambda output, y: -(output.log_softmax(1) * shares)[range(len(y)), y].mean())
    assert "its loss does" in network.build(Signature(6, 3, "multiclass")).why_no_gpu()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "not enough memory on its GPU for 5 rows .*microbatch="),
        (RuntimeError("CUDA error: device-side assert triggered"), "device='cpu' says which.*restart it"),
        (RuntimeError("Expected all tensors to be on the same device"), "make tensors where the input is"),
    ],
    ids=["memory", "assert", "apart"],
)
def test_what_fails_on_a_gpu(error, words):
    said = why_refused(nn.Linear(6, 3), X[:5], [torch.tensor(X[:5])], error, is_first=False)
    assert re.search(words, said)


@pytest.mark.parametrize(
    ("built_for", "words"),
    [(None, "is built without CUDA"), ("12.6", r"built for CUDA 12.6, cannot use the GPU that CuPy sees")],
)
def test_what_pytorch_lacks(monkeypatch, built_for, words):
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lack, remedy = torch_device.what_is_missing()
    with pytest.raises(Exception, match=f"worker b has no GPU for scaleml: PyTorch .* {words}: .*install"):
        chosen("cuda", [sees("x"), {**sees(), "error": lack, "remedy": remedy}])


def test_a_module_follows_its_vector(cupy):
    """From a GPU to the processor and back, as scorers of one's own have it, with its buffers."""
    (found,) = both(
        Serial(),
        There(TorchModel(normed, "cross_entropy")),
        only=gpus(Serial().layout(1), apart=True),
    )
    network = There(TorchModel(normed, "cross_entropy")).build(Signature(6, 3, "multiclass"))
    network.set_buffers(found.outcomes[0].buffers)
    cupy.cuda.Stream(non_blocking=True).use()
    there = network.predict(cupy.asarray(found.params), cupy.asarray(X))
    assert_array_equal(network.predict(found.params, X), there)
    assert_array_equal(network.predict(cupy.asarray(found.params), cupy.asarray(X)), there)
    module = network.module(found.params)
    assert {one.device.type for one in [*module.parameters(), *module.buffers()]} == {"cpu"}
