"""Every strategy x every framework: what holds for a network of the package holds for a foreign module."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from family.strategies import STRATEGIES
from frameworks.family import FRAMEWORKS, precise
from runtime import harness
from runtime.test_strategies import BATCH, made
from scaleml.compression import OneBit, PowerSGD
from scaleml.faults import Crash, Slow
from scaleml.frameworks import layout
from scaleml.models import Signature
from scaleml.optim import SGD, Adam
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial

X, Y, _ = made("multiclass", 600)
SHARDS = 4  # all batches are of one size, for which JAX compiles


def trained(model, strategy, **settings):
    return harness.on_threads(
        model, X, Y, **{"strategy": strategy, "optimizer": SGD(0.2), "shards": SHARDS, "batch_size": BATCH, **settings}
    )


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_strategy_learns(name, strategy):
    result = trained(FRAMEWORKS[name](), strategy, validation=(X, Y))
    losses = result.history.evaluations["loss"]
    assert losses[-1] < 0.85 * losses[0]
    assert result.history.evaluations["score"][-1] > 0.5
    assert result.params.dtype == np.float32


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("optimizer", [SGD(0.2, momentum=0.9), Adam(0.02)], ids=repr)
def test_two_ranks_are_one_process_on_the_whole_batch(name, optimizer):
    model, near = precise(name)
    one, two, overlapped = (
        trained(model, strategy, optimizer=optimizer, workers=workers).params
        for strategy, workers in [(Serial(), 1), (AllReduce(), 2), (AllReduce(overlap=True), 2)]
    )
    assert_allclose(two, one, rtol=near, atol=near)
    assert_allclose(overlapped, one, rtol=near, atol=near)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_overlap_sends_layer_by_layer(name, monkeypatch):
    from scaleml.comm import SocketCommunicator

    monkeypatch.setattr(layout, "ENOUGH", 1)
    sizes, start = [], SocketCommunicator.allreduce_start

    def noted(group, x, topology="direct"):
        if group.rank == 0:
            sizes.append(x.size)
        return start(group, x, topology)

    monkeypatch.setattr(SocketCommunicator, "allreduce_start", noted)
    model = FRAMEWORKS[name](classifier=True)  # built anew
    overlapped = trained(model, AllReduce(overlap=True, topology="direct"))
    assert sizes[:3] == [6 * 3 + 3, 7 * 6 + 6, 3], "from the last layer to the first, then the tail"
    assert_array_equal(overlapped.params, trained(model, AllReduce(topology="direct")).params)


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("strategy", [AllReduce(PowerSGD(1)), LocalSGD(4, compression=OneBit())], ids=repr)
def test_codecs(name, strategy):
    losses = trained(FRAMEWORKS[name](), strategy, validation=(X, Y)).history.evaluations["loss"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_faults(name):
    model = FRAMEWORKS[name]()
    slow = trained(model, AllReduce(), faults=[Slow(rank=1, factor=2)])
    assert [text for _, text in slow.history.marks] == [repr(Slow(rank=1, factor=2))]
    assert_array_equal(slow.params, trained(model, AllReduce()).params)
    with pytest.raises(Exception, match="injected by Crash"):
        trained(model, ParameterServer(), faults=[Crash(rank=1, step=3)])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_weights_of_rows(name):
    """A row of weight two is that row twice."""
    weight = np.arange(len(Y)) % 3
    whole = {"batch_size": len(Y), "shards": 1, "workers": 1, "epochs": 3}
    model, near = precise(name)
    weighted = trained(model, Serial(), sample_weight=weight, **whole)
    rows = np.repeat(np.arange(len(Y)), weight)
    repeated = harness.on_threads(
        model, X[rows], Y[rows], strategy=Serial(), optimizer=SGD(0.2), **{**whole, "batch_size": len(rows)}
    )
    assert_allclose(weighted.params, repeated.params, rtol=near, atol=near)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_arrays_however_they_lie(name):
    """Reversed columns and rows, and fields of packed records, are the same numbers."""
    network = FRAMEWORKS[name]().build(Signature(7, 3, "multiclass"))
    x, y = X[:9].astype("f4"), Y[:9].astype("i4")
    packed = np.zeros(9, [("more", "u1"), ("x", "f4", (7,)), ("y", "i4")])
    packed["x"], packed["y"] = x, y
    own = network.init(0)
    expected, out = np.empty((2, network.size), "f4")
    totals = network.loss_grad(own, x, y, None, expected)
    flipped = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1], np.ascontiguousarray(y[::-1])[::-1]
    for rows, targets in [flipped, (packed["x"], packed["y"])]:
        targets.flags.writeable = False
        assert_array_equal(network.predict(own, rows), network.predict(own, x))
        assert network.loss_grad(own, rows, targets, None, out) == pytest.approx(totals)
        assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
