"""Asynchronous gossip: pairs that meet as they come, ranks that end together, commands in one order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from runtime import harness
from runtime.test_commands import told
from runtime.test_strategies import BATCH, EPOCHS, ROWS, SHARDS, linear, made
from scaleml.comm import inprocess
from scaleml.comm.conventions import INLINE
from scaleml.faults import Slow
from scaleml.models import MLP
from scaleml.optim import SGD
from scaleml.runtime.commands import Command
from scaleml.runtime.gossip import GossipCoordinator
from scaleml.strategies import AllReduce, Gossip
from scaleml.telemetry import Ledger

STEPS = EPOCHS * -(-ROWS // BATCH)
TOPOLOGIES = ("ring", "exponential", "random")
RANKS = (1, 2, 3, 5)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("ranks", RANKS)
def test_asynchronous_ranks_end_together_with_all_rows_taken(topology, ranks):
    x, y, _ = made("binary")
    result = harness.on_threads(
        linear("binary"), x, y, strategy=Gossip(topology, asynchronous=True), optimizer=SGD(0.1), workers=ranks,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH, validation=(x[:101], y[:101]),
    )  # fmt: skip
    ledger = Ledger(result.history)
    assert result.state == "finished"
    assert ledger.samples.sum() >= EPOCHS * ROWS
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)
    losses = result.history.evaluations["loss"]
    # Rank 0, held up, may hear of several epochs' rows at once: then one evaluation serves for all of them.
    assert (EPOCHS if ranks == 1 else 2) <= len(losses) <= EPOCHS + 1
    assert losses[-1] < 0.95 * losses[0]
    # What of a partner's updates a rank took in, it took in once.
    taken_in = ledger.staleness * ledger.updates
    assert (taken_in <= ledger.updates.sum() - ledger.updates + 1e-6).all()
    assert taken_in.sum() > 0 or ranks == 1


def test_one_asynchronous_rank_is_serial():
    x, y, _ = made("binary")
    settings = {"optimizer": SGD(0.3, momentum=0.9), "workers": 1, "epochs": EPOCHS, "batch_size": BATCH}
    alone = harness.on_threads(linear("binary"), x, y, strategy=Gossip(asynchronous=True), **settings)
    serial = harness.on_threads(linear("binary"), x, y, strategy=AllReduce(), **settings)
    assert len(alone.outcomes) == 1
    assert alone.outcomes[0].step in (serial.outcomes[0].step, serial.outcomes[0].step + 1)


@pytest.mark.parametrize("shared_memory", [True, False])
def test_pairs_keep_the_mean_however_they_meet(shared_memory):
    """Without gradients: whatever meets whatever, and whatever waits in between, nothing is lost and nothing is made."""

    def rank_main(group):
        from types import SimpleNamespace

        from scaleml.runtime.gossip import GossipCoordinator
        from scaleml.telemetry.recorder import Recorder

        size = INLINE // 8 + 100 if group.rank >= 0 else 0
        w = np.random.default_rng(group.rank).normal(size=size)
        first = w.copy()
        plan = SimpleNamespace(
            model=SimpleNamespace(dtype="float64"), total=1 << 40, taken=(), evaluate_every=0, start=None, resumed=False,
            strategy=Gossip("random", asynchronous=True), layout=SimpleNamespace(servers=0),
        )  # fmt: skip
        neighbours = GossipCoordinator(plan, group, w, Recorder(group.rank, group.meter))
        partners = plan.strategy.partners(group.rank, group.size)
        rng = np.random.default_rng(100 + group.rank)
        for step in range(200 + 50 * group.rank):
            group.step = step
            neighbours.mix(w)
            if partners:
                neighbours.offer(w, partners[rng.integers(len(partners))])
            if step in (50, 150):
                neighbours.settle()
        neighbours.leave(w)
        group.barrier()
        return first, w

    for ranks in (2, 3, 5):
        first, last = np.array(inprocess.run(ranks, rank_main, shared_memory=shared_memory)).transpose(1, 0, 2)
        assert_allclose(last.sum(axis=0), first.sum(axis=0), atol=1e-11)
        assert np.linalg.norm(last - last.mean(axis=0)) < 0.5 * np.linalg.norm(first - first.mean(axis=0))


def test_a_slow_rank_takes_fewer_steps_and_holds_nobody_up(train):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 50))
    y = (x @ rng.normal(size=(50, 10))).argmax(axis=1)
    for slow in (0, 1):  # an active one, a passive one
        for _ in range(3):  # of two that share a core, one may be served late
            result = train(
                MLP((30,)), x, y, strategy=Gossip("random", asynchronous=True), workers=3, epochs=4, batch_size=60,
                faults=[Slow(rank=slow, factor=40)],
            )  # fmt: skip
            ledger = Ledger(result.history)
            others = [rank for rank in range(3) if rank != slow]
            assert (
                ledger.compute[slow] / ledger.updates[slow]
                > 5 * (ledger.compute[others] / ledger.updates[others]).max()
            )
            assert np.isfinite(result.params).all()
            if free := (ledger.updates[others] > 3 * ledger.updates[slow]).all():
                break
        assert free


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("verbs", [("stop",), ("pause", "stop"), ("pause", "resume")])
def test_asynchronous_ranks_are_told(verbs, ranks):
    result = told(*[(verb, {}) for verb in verbs], strategy=Gossip("random", asynchronous=True), workers=ranks)
    assert result.state == ("finished" if verbs[-1] == "resume" else "stopped")
    for number in range(1, len(verbs) + 1):
        assert sorted(result.applied[number]) == list(range(ranks))
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)
    assert np.isfinite(result.params).all()


def test_a_pause_is_not_overtaken_by_the_end(monkeypatch):
    # Rank 2 is in its first step while rank 0 is paused, goes on and ends the run: it hears of all of it at once.
    over = threading.Event()
    keep_time = GossipCoordinator._keep_time

    def noting(neighbours):
        keep_time(neighbours)
        if neighbours._group.rank == 0 and neighbours.done:
            over.set()

    def hold(rank, step, command_queue):
        if rank == 2 and step == 1:
            assert over.wait(60)

    monkeypatch.setattr(GossipCoordinator, "_keep_time", noting)
    strategy = Gossip("random", asynchronous=True)
    result = told(("pause", {}), ("resume", {}), strategy=strategy, workers=3, hook=hold)
    assert over.is_set()
    assert [sorted(result.applied[number]) for number in (1, 2)] == [[0, 1, 2]] * 2
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def test_ranks_that_take_over_count_the_rows_from_there():
    x, y, _ = made("binary")
    usual = {"optimizer": SGD(0.1), "workers": 3, "shards": SHARDS, "epochs": 4, "batch_size": BATCH, "keep_end": True}
    switch = Command(number=1, verb="switch", settings={})
    first = harness.on_threads(linear("binary"), x, y, strategy=AllReduce(), commands=[(STEPS, switch)], **usual)
    assert first.state == "switched"
    after = harness.on_threads(
        linear("binary"), x, y, strategy=Gossip(asynchronous=True), before=first.outcomes, simulated=True, **usual
    )
    assert sum(outcome.state.samples for outcome in after.outcomes) >= 4 * ROWS
