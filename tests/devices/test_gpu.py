"""Whole runs on a real GPU, against the same on the processor in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix

from devices.conftest import X, Y
from runtime.harness import on_threads
from scaleml.compression import PowerSGD, TopK
from scaleml.devices import Gpu, visible_gpus
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Adam
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

pytestmark = pytest.mark.gpu
VISIBLE = visible_gpus()
if not VISIBLE["gpus"]:
    pytest.skip(f"no GPU: {VISIBLE['error']}", allow_module_level=True)

MODELS = [LinearModel(dtype="float64"), MLP((7, 5), dtype="float64")]


def compared(strategy, model, gpus, x=X, **more):
    settings = {"optimizer": SGD(0.1, momentum=0.9), "epochs": 3, "batch_size": 24, "validation": (x, Y)} | more
    layout = strategy.layout(2)
    where = (*gpus[: layout.workers], *[None] * layout.servers)
    cpu, gpu = (on_threads(model, x, Y, strategy=strategy, workers=2, gpus=one, **settings) for one in ((), where))
    assert_allclose(gpu.params, cpu.params, rtol=1e-9, atol=1e-11)
    assert_allclose(gpu.history.evaluations["loss"], cpu.history.evaluations["loss"], rtol=1e-9)


def one_gpu():
    identity, name = VISIBLE["gpus"][0]
    return [Gpu(0, identity, name, False)] * 2


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, clip_norm=0.5), Adam(0.01)], ids=repr)
@pytest.mark.parametrize("weights", [None, np.linspace(0, 1, 96)], ids=["", "weights"])
def test_epochs(model, optimizer, weights):
    compared(Serial(), model, one_gpu(), optimizer=optimizer, sample_weight=weights)


def test_sparse_rows():
    compared(Serial(), MODELS[0], one_gpu(), x=csr_matrix(np.where(X > 0, X, 0)))


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize(
    "strategy",
    [
        AllReduce(),
        AllReduce(overlap=True),
        AllReduce(compression=TopK(0.3)),
        LocalSGD(2, outer=SGD(0.7, momentum=0.9)),
        Gossip(),
        ParameterServer("bsp"),
    ],
    ids=repr,
)
def test_two_ranks_on_one_gpu(strategy, model):
    compared(strategy, model, one_gpu())


@pytest.mark.parametrize("strategy", [Hogwild(), Gossip(asynchronous=True), ParameterServer()], ids=repr)
def test_who_keeps_no_step_learns(strategy):
    layout = strategy.layout(2)
    where = (*one_gpu(), *[None] * layout.servers)
    found = on_threads(MODELS[1], X, Y, strategy=strategy, workers=2, gpus=where, epochs=8, validation=(X, Y))
    losses = found.history.evaluations["loss"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize(
    "strategy",
    [AllReduce(), AllReduce(overlap=True), AllReduce(compression=PowerSGD(1)), LocalSGD(2), Gossip()],
    ids=repr,
)
def test_nccl(strategy, model):
    if len(VISIBLE["gpus"]) < 2 or not VISIBLE["nccl"]:
        pytest.skip("NCCL needs two GPUs")
    compared(strategy, model, [Gpu(index, *VISIBLE["gpus"][index], True) for index in range(2)])
