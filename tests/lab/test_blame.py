"""The words on real workers: who is blamed was in fact slowed, and the cost named is the one measured.

Measured is the difference of two runs' training clocks, disturbed and undisturbed. The faults here cost twenty times what the
undisturbed run takes, so a machine that is busy with other things during one of the two (and then three times as slow)
changes the difference by a tenth only.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import scaleml
from lab.measuring import agree
from runtime.harness import on_workers
from scaleml.faults import Bandwidth, Latency, Slow
from scaleml.lab.trace import Trace
from scaleml.lab.words import blame, line
from scaleml.strategies import AllReduce, LocalSGD

BUSY = scaleml.MLP((256, 256)), {"batch_size": 512, "epochs": 4}
"""Steps of some milliseconds of computing, which a slow rank multiplies."""
BRIEF = scaleml.LinearModel(), {"batch_size": 256, "epochs": 4}
"""Steps of a fraction of a millisecond, beside which slow links are all that matters."""


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    x = random.standard_normal((4096, 60), dtype=np.float32)
    return x, (x @ random.standard_normal(60) > 0).astype(int)


def trained(data, strategy, settings, *faults):
    model, common = settings
    return on_workers(model, *data, strategy=strategy, faults=faults, **common).run


def measured(run):
    return float(run.history["time"].max())


@pytest.mark.parametrize(("strategy", "slow"), [(AllReduce(), 0), (AllReduce(), 1), (LocalSGD(4), 1)], ids=repr)
def test_the_worker_that_was_slowed_is_blamed_with_what_it_cost(cluster, data, strategy, slow):
    run = trained(data, strategy, BUSY, Slow(slow, factor=30))
    assert [change.text for change in run.history.changes] == [repr(Slow(slow, factor=30))]
    trace = Trace(run)
    found = blame(trace.total, trace.total)
    assert found is not None
    assert found.rank == slow
    assert found.ratio > 10
    assert f"Rank {1 - slow} waited" in line(trace)
    assert f"for rank {slow}, which computes" in line(trace)

    def cost():
        undisturbed, again = trained(data, strategy, BUSY), trained(data, strategy, BUSY, Slow(slow, factor=30))
        total = Trace(again).total
        return blame(total, total).cost, measured(again), measured(undisturbed)

    assert agree(cost) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Latency(1, 0.03), "What rank 1 sends arrives 30 ms later"),
        (Bandwidth(0, 15_000.0), "Rank 0 sends at most 15 kB a second"),
    ],
    ids=["latency", "bandwidth"],
)
def test_the_worker_whose_links_were_slowed_is_named_with_what_that_cost(cluster, data, fault, words):
    def cost():
        undisturbed, run = trained(data, AllReduce(), BRIEF), trained(data, AllReduce(), BRIEF, fault)
        return said(run), measured(run), measured(undisturbed)

    def said(run):
        found = re.search(rf"{words}: communication has taken each rank ([\d.]+) (m?s)", line(Trace(run)))
        assert found is not None, line(Trace(run))
        return float(found[1]) * {"s": 1.0, "ms": 1e-3}[found[2]]

    assert agree(cost) == []
