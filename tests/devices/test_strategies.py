"""Every strategy x models on GPUs, stood in for, against the same run on the processor: the same arithmetic, so the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix

import fake_cupy
from devices.conftest import X, both, gpus
from family.strategies import STRATEGIES
from runtime.test_train_state import spoiled_and_restored, take_turns
from scaleml.compression import FP16, Int8, OneBit, PowerSGD, RandomK, TopK
from scaleml.faults import Pause, Slow
from scaleml.models import MLP, LinearModel
from scaleml.optim import (
    LBFGS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Averaged,
    Columns,
    CosineAnnealing,
    RowRate,
    RowSteps,
    Warmup,
)
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

MODELS = [LinearModel(alpha=1e-3), MLP((5,))]
APART = pytest.mark.parametrize("apart", [True, False], ids=["a GPU each", "one GPU"])


def same(results):
    """Hold two runs against each other: parameters, evaluations, noise, steps; all to the bit."""
    cpu, gpu = results
    assert type(gpu.params) is np.ndarray
    assert_array_equal(gpu.params, cpu.params)
    for column in ("step", "loss", "score"):
        assert_array_equal(gpu.history.evaluations[column], cpu.history.evaluations[column])


@APART
@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_the_same_run(cupy, strategy, model, apart):
    keeps = bool(strategy.layout(2).servers) or strategy.shares_memory
    seen = []

    def look(loop):
        if isinstance(loop, TrainingLoop):
            seen.append((type(loop.rank.state.params), type(loop.rank.gradients.batches.take(0, 4)[0])))
            if not strategy.synchronous and not apart:
                take_turns(loop)

    # Virtual time has one thread run after the other: they could not meet in NCCL.
    found = both(strategy, model, apart=apart, simulated=not strategy.synchronous and not apart, prepare=look)
    there = np.ndarray if keeps else fake_cupy.ndarray
    assert seen[len(seen) // 2 :] == [(there, fake_cupy.ndarray)] * strategy.layout(2).workers
    assert not cupy.cuda.pinned
    if strategy.synchronous or not apart:
        same(found)
    losses = found[1].history.evaluations["loss"]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, momentum=0.9, nesterov=True),
        SGD(0.1, schedule="invscaling"),
        SGD(0.1, schedule="adaptive", n_iter_no_change=1, tol=0.1),
        SGD(0.5, clip_norm=0.05),
        Adam(0.01),
        Adam(0.01, epsilon_hat=True),
        AdaGrad(0.1),
        AdamW(0.01, weight_decay=0.1, no_decay="1d", schedule=Warmup(epochs=1, then=CosineAnnealing())),
        Averaged(SGD(0.1), start=3),
        LBFGS(),
    ],
    ids=repr,
)
def test_every_optimizer(cupy, optimizer):
    more = {"stop": StopRule(tol=None)} if optimizer.takes_all_rows else {}
    more |= {"batch_size": 96, "part_rows": 40} if optimizer.takes_all_rows else {}
    same(both(AllReduce(), LinearModel(), optimizer=optimizer, epochs=4, **more))


@APART
@pytest.mark.parametrize(
    "strategy",
    [
        *[AllReduce(compression=codec) for codec in (FP16(), Int8(), OneBit(), TopK(0.2), RandomK(0.3), PowerSGD(1))],
        LocalSGD(2, compression=TopK(0.3)),
        LocalSGD(2, outer=SGD(0.7, momentum=0.9, nesterov=True)),
        LocalSGD(None),
        LocalSGD(3, start_after=3),
        Gossip("exponential"),
        Gossip("random"),
        AllReduce(overlap=True),
    ],
    ids=repr,
)
def test_codecs_and_settings(cupy, strategy, apart):
    same(both(strategy, MLP((8,)), apart=apart, workers=3))


@pytest.mark.parametrize("l1", [0.0, 0.01])
@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(2), ParameterServer("bsp")], ids=repr)
def test_the_steps_of_estimators(cupy, strategy, l1):
    rate = RowRate("optimal", 0.1, alpha=1e-3)
    steps = RowSteps.measured(
        X + 1, Columns(6).add(X + 1), rate, 24, 96, seed=0, intercept=True, curvature=0.25, outputs=3, l1=l1
    )
    same(both(strategy, LinearModel(), steps=steps, x=lambda x: x + 1, optimizer=SGD(1.0)))


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(2), ParameterServer("bsp"), Serial()], ids=repr)
def test_micro_batches(cupy, strategy):
    same(both(strategy, MLP((5,)), part_rows=10, sample_weight=np.linspace(1, 2, 96)))
    same(both(strategy, MLP((5,)), part_rows=10))


@pytest.mark.parametrize("codec", [Int8(), OneBit()], ids=repr)
def test_codecs_of_long_vectors(cupy, codec):
    same(both(AllReduce(compression=codec), MLP((2000,)), workers=3, epochs=1, validation=None))


@pytest.mark.parametrize("topology", ["ring", "halving", "hierarchical"])
def test_topologies_of_what_is_staged(cupy, topology):
    same(both(AllReduce(topology=topology), MLP((5,)), apart=False, workers=3))


@pytest.mark.parametrize("weights", ["positive", "some 0", "mostly 0"])
@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(2), ParameterServer("bsp")], ids=repr)
def test_weights(cupy, strategy, weights):
    rows = np.random.default_rng(1).random(96)
    rows[rows < {"positive": 0.0, "some 0": 0.4, "mostly 0": 0.9}[weights]] = 0
    same(both(strategy, MLP((5,)), sample_weight=rows + (weights == "positive")))


@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), Hogwild()], ids=repr)
def test_sparse_rows(cupy, strategy):
    both(strategy, LinearModel(), x=csr_matrix, workers=2)
    if strategy.synchronous:
        same(both(strategy, LinearModel(), x=csr_matrix))


@APART
@pytest.mark.parametrize(
    "strategy",
    [AllReduce(), AllReduce(compression=PowerSGD(1)), LocalSGD(3, outer=SGD(0.7, momentum=0.9)), Gossip()],
    ids=repr,
)
def test_a_state_goes_through_bytes(cupy, strategy, apart):
    happened = set()
    cpu, gpu = both(strategy, MLP((4,)), apart=apart, batch_size=12, keep_end=True)
    where = gpus(strategy.layout(2), apart=apart)
    (again,) = both(
        *(strategy, MLP((4,))), batch_size=12, prepare=spoiled_and_restored(5, happened), only=where, keep_end=True
    )
    assert happened == {0, 1}
    for found in (gpu, again):
        assert_array_equal(found.params, cpu.params)
    for ours, theirs in zip(gpu.outcomes, cpu.outcomes, strict=True):
        assert ours.state.to_bytes()[-200:] == theirs.state.to_bytes()[-200:]
        assert ours.state.arrays.keys() == theirs.state.arrays.keys()
        for name, array in theirs.state.arrays.items():
            assert_array_equal(ours.state.arrays[name], array)


def switch(number, strategy, steps):
    return steps, Command(number, "update", {"strategy": describe(strategy)})


@APART
def test_a_switch_of_strategy(cupy, apart, monkeypatch):
    monkeypatch.setattr("scaleml.runtime.queued_commands._APART", 0.0)  # ranks talk at every step: none ends unheard
    commands = [switch(1, LocalSGD(2, compression=TopK(0.5)), 3), switch(2, Gossip(), 7), switch(3, AllReduce(), 13)]
    found = both(AllReduce(), MLP((4,)), apart=apart, batch_size=12, epochs=4, commands=commands)
    assert len(found[1].applied) == 3
    if not apart:  # the same steps as on the processor; by NCCL a command takes effect some steps later
        same(found)
    else:
        assert found[1].state == "finished"
        assert all(len(set(steps.values())) == 1 for steps in found[1].applied.values())


def test_warm_starts_and_servers_that_follow(cupy):
    start = np.linspace(-1, 1, 21, dtype="f4")
    same(both(AllReduce(), LinearModel(), start=start))
    results = []
    for where in ((), gpus(AllReduce().layout(2), apart=False)):
        first = both(AllReduce(), LinearModel(), only=where, commands=[(3, Command(1, "switch", {}))], epochs=8)[0]
        assert first.state == "switched"
        second = ParameterServer("bsp")
        there = gpus(second.layout(2), apart=False) if where else ()
        results += both(second, LinearModel(), only=there, before=first.outcomes, epochs=8)
    same(results)


@APART
def test_faults(cupy, apart):
    broken = [Slow(1, factor=3, step=2, until=5), Pause(0, step=3, seconds=0.01)]
    same(both(AllReduce(), MLP((5,)), apart=apart, faults=broken))


@pytest.mark.parametrize(
    "strategy", [AllReduce(), LocalSGD(2), Gossip(), Gossip(asynchronous=True), Hogwild()], ids=repr
)
def test_a_rank_without_a_gpu_among_others(cupy, strategy):
    where = (*gpus(strategy.layout(2), apart=True)[:1], None)
    (mixed,) = both(strategy, MLP((5,)), only=where)
    if strategy.synchronous:
        same([*both(strategy, MLP((5,)), only=()), mixed])


def test_noise_is_measured_alike(cupy):
    for strategy in (AllReduce(), LocalSGD(2)):
        cpu, gpu = (found.history.to_frame() for found in both(strategy, MLP((5,)), epochs=6))
        for column in ("noise", "signal", "noise_weight", "updates"):
            ours, theirs = (table.groupby("rank")[column].sum() for table in (gpu, cpu))
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_history_counts_alike(cupy):
    cpu, gpu = both(AllReduce(), MLP((5,)), on_epochs=True, epochs=3)
    for one in (cpu, gpu):
        table = one.history.to_frame()
        assert table.groupby("rank")["updates"].sum().tolist() == [12, 12]
        assert table.groupby("rank")["samples"].max().tolist() == [144, 144]
    assert cpu.outcomes[0].losses == gpu.outcomes[0].losses
