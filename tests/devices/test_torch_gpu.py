"""PyTorch modules on a real GPU, against the same runs on the processor in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("torch")

import torch
from torch import nn

from devices.conftest import X, Y
from devices.test_gpu import VISIBLE, one_gpu
from frameworks.torch_modules import CASES, N, built
from runtime.harness import on_threads
from scaleml import TorchModel
from scaleml.arrays import gpu_library
from scaleml.compression import TopK
from scaleml.devices import Cuda, Gpu
from scaleml.frameworks.residual_network import ResidualNetwork
from scaleml.frameworks.text_classifier import TextClassifier
from scaleml.models import Signature
from scaleml.optim import SGD, Adam
from scaleml.strategies import AllReduce, Gossip, LocalSGD, ParameterServer, Serial

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("this PyTorch sees no GPU", allow_module_level=True)


def normed(dropout=0.0):
    layers = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
    return nn.Sequential(*layers)


def trained(strategy, model, gpus, **more):
    layout = strategy.layout(2)
    where = (*gpus[: layout.workers], *[None] * layout.servers) if gpus else ()
    settings = {"optimizer": SGD(0.1, momentum=0.9), "epochs": 3, "batch_size": 24, "validation": (X, Y)} | more
    return on_threads(model, X, Y, strategy=strategy, workers=2, gpus=where, **settings)


def alike(cpu, gpu):
    assert_allclose(gpu.params, cpu.params, rtol=1e-8, atol=1e-10)
    assert_allclose(gpu.history.evaluations["loss"], cpu.history.evaluations["loss"], rtol=1e-8)
    for ours, theirs in zip(gpu.outcomes, cpu.outcomes, strict=True):
        if theirs.buffers is not None:
            assert_allclose(ours.buffers.values, theirs.buffers.values, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "strategy",
    [
        Serial(),
        AllReduce(),
        AllReduce(overlap=True),
        AllReduce(compression=TopK(0.3)),
        LocalSGD(2, outer=SGD(0.7, momentum=0.9)),
        Gossip(),
        ParameterServer("bsp"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(ignore_index=0)], ids=["", "ignored"])
def test_epochs(strategy, loss):
    model = TorchModel(normed, loss, dtype="float64")
    alike(*(trained(strategy, model, gpus) for gpus in ((), one_gpu())))


@pytest.mark.parametrize("strategy", [AllReduce(), AllReduce(overlap=True), LocalSGD(2)], ids=repr)
def test_nccl(strategy):
    if len(VISIBLE["gpus"]) < 2 or not VISIBLE["nccl"]:
        pytest.skip("NCCL needs two GPUs")
    where = [Gpu(index, *VISIBLE["gpus"][index], True) for index in range(2)]
    model = TorchModel(normed, "cross_entropy", dtype="float64")
    alike(*(trained(strategy, model, gpus) for gpus in ((), where)))


def test_dropout_by_seed_step_and_rank():
    model = TorchModel(lambda: normed(0.3), "cross_entropy", dtype="float64")
    before = torch.cuda.get_rng_state()
    runs = [trained(AllReduce(), model, one_gpu(), seed=seed).params for seed in (1, 1, 2)]
    assert_allclose(runs[0], runs[1], rtol=1e-8, atol=1e-10)
    assert not np.allclose(runs[0], runs[2], rtol=1e-2)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_nobody_waits_in_a_step():
    """PyTorch's own watch: each wait of the host in a step is an error."""

    def prepare(loop):
        rank, take_step = loop.rank, loop.rank.take_step
        rank.noise.due = np.inf

        def step():
            rank.recorder.due = np.inf
            torch.cuda.set_sync_debug_mode("error" if rank.step > 1 else "default")  # the first ones load kernels
            try:
                take_step()
            finally:
                torch.cuda.set_sync_debug_mode("default")

        rank.take_step = step

    model = TorchModel(lambda: normed(0.3), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), compute="bfloat16")
    found = trained(Serial(), model, one_gpu(), prepare=prepare, optimizer=Adam(0.01), validation=None, epochs=4)
    assert np.isfinite(found.params).all()


@pytest.fixture
def device():
    there = Cuda(one_gpu()[0])
    yield there
    there.release()


@pytest.mark.parametrize("name", [name for name in CASES if name != "norm and dropout"])  # draws others
def test_gradients(device, name):
    network, x, y = built(CASES[name], "float64")
    w, out = network.init(0), np.empty(network.size)
    totals = network.loss_grad(w, x, y, None, out)
    xp = gpu_library()
    there = [xp.asarray(one) for one in (w, x, y)]
    mine = xp.empty(network.size)
    assert_allclose([float(one) for one in network.loss_grad(*there, None, mine)], totals, rtol=1e-9)
    assert_allclose(mine.get(), out, rtol=1e-7, atol=1e-9)
    assert {one.device.type for one in network.module(w).parameters()} == {"cpu"}
    network.release()


@pytest.mark.parametrize("shipped", ["texts", "images"])
def test_several_inputs_and_other_dtypes(device, shipped):
    random = np.random.default_rng(0)
    if shipped == "texts":
        row = np.dtype([("tokens", "i4", (5,)), ("lengths", "i8")])
        x = np.zeros(N, row)
        x["tokens"], x["lengths"] = random.integers(0, 9, (N, 5)), random.integers(1, 6, N)
        model = TextClassifier(vocabulary=9)
    else:
        row = np.dtype(("u1", (3, 8, 8)))
        x, model = random.integers(0, 256, (N, 3, 8, 8)).astype("u1"), ResidualNetwork(width=4)
    network = model.build(Signature(5, 3, "multiclass", row=row))
    y = random.integers(0, 3, N).astype("i4")
    w = network.init(0)
    cpu = network.statistics(w, x, y)
    gpu = network.statistics(device.put(w), device.put(x), device.put(y))
    assert_allclose(gpu[:2], cpu[:2], rtol=1e-3)
    assert network.predict_proba(device.put(w), device.put(x)).shape == (N, 3)
    network.release()
