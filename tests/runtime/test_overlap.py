"""All-reduce by other ways and a layer at a time: the same sums, the same evaluations, the same ledger."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import scaleml
from runtime import harness
from runtime.test_strategies import BATCH, EPOCHS, SHARDS, close, made
from scaleml.comm.collectives import TOPOLOGIES
from scaleml.compression import Int8
from scaleml.models import MLP
from scaleml.optim import Adam
from scaleml.strategies import AllReduce
from scaleml.telemetry import Ledger

WIDE = MLP((300, 200), alpha=0.01)  # the layers between the first and the last are long vectors


def trained(train, strategy, workers=3, model=WIDE, **settings):
    x, y, _ = made("multiclass")
    return train(
        model, x, y, strategy=strategy, optimizer=Adam(0.01), workers=workers, shards=SHARDS, epochs=EPOCHS,
        batch_size=BATCH, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_overlap_gives_the_same_bits(train, workers):
    plain = trained(train, AllReduce(topology="direct"), workers)
    assert_array_equal(trained(train, AllReduce(topology="direct", overlap=True), workers).params, plain.params)


def test_overlap_really_overlaps():
    """The first part is under way before the last is computed."""
    from scaleml.comm import SocketCommunicator

    order = []
    start = SocketCommunicator.allreduce_start

    def noted(group, x, topology="direct"):
        if group.rank == 0:
            order.append(("sent", x.size))
        return start(group, x, topology)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SocketCommunicator, "allreduce_start", noted)
        trained(harness.on_threads, AllReduce(overlap=True), 2)
    sizes = [size for _, size in order[:4]]
    assert sizes == [200 * 3 + 3, 300 * 200 + 200, 7 * 300 + 300, 3], "from the last layer to the first, then the tail"


def test_ranks_without_rows_take_part_in_the_overlap():
    x, y, _ = made("multiclass")
    settings = {"workers": 5, "epochs": 1, "batch_size": 3}
    result = harness.on_threads(MLP((6,)), x, y, strategy=AllReduce(overlap=True), **settings)
    assert_array_equal(result.params, harness.on_threads(MLP((6,)), x, y, strategy=AllReduce(), **settings).params)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_trains_alike(topology, overlap):
    plain = trained(harness.on_threads, AllReduce(), 5, MLP((300,), dtype="float64"))
    other = trained(harness.on_threads, AllReduce(topology=topology, overlap=overlap), 5, MLP((300,), dtype="float64"))
    close(other.params, plain.params, 1e-7)
    for outcome in other.outcomes:
        assert_array_equal(outcome.params, other.params)


def test_the_ledger_adds_up_with_overlap(train):
    result = trained(train, AllReduce(overlap=True))
    ledger = Ledger(result.history)
    rank, time = result.history["rank"], result.history["time"]
    clocks = np.array([time[rank == r].max() for r in ledger.ranks])
    np.testing.assert_allclose(ledger.wall, clocks, rtol=0.02)
    plain = Ledger(trained(train, AllReduce()).history)
    np.testing.assert_allclose(ledger.bytes_sent, plain.bytes_sent, rtol=0.1)


def test_the_run_says_which_topology(cluster):
    x, y, _ = made("binary")
    run = scaleml.train(scaleml.LinearModel(), x, y, strategy=AllReduce(), workers=2, epochs=1)
    assert run.topology == "direct", "one host"
    run = scaleml.train(scaleml.LinearModel(), x, y, strategy=AllReduce(topology="ring"), workers=3, epochs=1)
    assert run.topology == "ring"


def test_the_choice_goes_by_bytes_and_hosts():
    assert AllReduce().resolve(4_000_000, (4,)).topology == "direct"
    assert AllReduce().resolve(4_000_000, (2, 2)).topology == "hierarchical"
    assert AllReduce(topology="ring").resolve(4_000_000, (2, 2)).topology == "ring"
    assert AllReduce(compression=Int8()).resolve(4_000_000, (2, 2)).topology == "direct"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topology": "star"}, "topology='star'"),
        ({"overlap": 1}, "overlap=1"),
        ({"overlap": True, "compression": Int8()}, "compressed"),
        ({"topology": "ring", "compression": Int8()}, "compressed"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        AllReduce(**settings)
