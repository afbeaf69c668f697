"""What a rank holds of the size of its parameters, counted from the settings alone."""

from __future__ import annotations

import pytest

from scaleml import MLP, SGD, Adam, AllReduce, Gossip, LinearModel, LocalSGD, ParameterServer
from scaleml.compression import TopK
from scaleml.models import Signature
from scaleml.optim import Averaged, Optimizer
from scaleml.runtime.footprint import Footprint
from scaleml.strategies import Strategy

NETWORK = LinearModel(dtype="float64").build(Signature(9, dtype="float64"))


@pytest.mark.parametrize(
    ("strategy", "optimizer", "arrays"),
    [
        (AllReduce(), SGD(0.1), 2 + 4),
        (AllReduce(), SGD(0.1, momentum=0.9), 2 + 1 + 4),
        (AllReduce(), Adam(), 2 + 2 + 4),
        (AllReduce(), Averaged(Adam()), 2 + 3 + 4),
        (AllReduce(compression=TopK(0.1)), SGD(0.1), 2 + 2 + 4),
        (LocalSGD(4, outer=SGD(0.7, momentum=0.9)), SGD(0.1), 2 + 2 + 4),
        (ParameterServer(), SGD(0.1), 2 + 8),
        (Gossip(), SGD(0.1), 2 + 8),
    ],
    ids=repr,
)
def test_its_arrays(strategy: Strategy, optimizer: Optimizer, arrays: int) -> None:
    found = Footprint.of(NETWORK, strategy, optimizer)
    assert (found.size, found.nbytes, found.total) == (10, 80, 80 * arrays)
    assert sum(count for _, count in found.parts) == arrays
    assert all(count for _, count in found.parts)


def test_slots_are_those_that_the_optimizer_makes() -> None:
    for optimizer in (SGD(), SGD(momentum=0.5), Adam(), Averaged(SGD(momentum=0.5))):
        made = [array for array in optimizer.init(10, "float32").values() if array.shape == (10,)]
        counted = dict(Footprint.of(NETWORK, AllReduce(), optimizer).parts)
        assert counted.get(f"{type(optimizer).__name__}'s slots", 0) == len(made)


def test_a_network_of_a_million_million_parameters_is_described_without_an_array() -> None:
    network = MLP((10**6, 10**6)).build(Signature(20))
    assert Footprint.of(network, AllReduce(), Adam()).total == network.size * 4 * 8
