"""What is broken on purpose really breaks: where, when and for how long the plan says, and the ledger shows it."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import scaleml
from runtime import harness
from runtime.test_commands import told
from runtime.test_strategies import BATCH, SHARDS, linear, made
from scaleml import RunFailed, faults
from scaleml.comm import CorruptFrame, PeerLost
from scaleml.faults import Bandwidth, DropLink, Kill, Latency, Pause, Slow
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe, fault_from, rebuild
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer
from scaleml.telemetry import Ledger

RANKS = 3


def trained(train, strategy=AllReduce(), broken=(), **settings):  # noqa: B008  immutable
    x, y, _ = made("binary")
    usual = {"workers": RANKS, "shards": SHARDS, "epochs": 1, "batch_size": BATCH}
    return train(linear("binary"), x, y, strategy=strategy, faults=broken, **{**usual, **settings})


def test_a_pause_is_other_time_of_its_rank_and_waiting_time_of_the_others(train):
    plain, paused = trained(train), trained(train, broken=[Pause(1, step=4, seconds=0.4)])
    assert_array_equal(paused.params, plain.params)
    ledger = Ledger(paused.history)
    assert ledger.other[1] >= 0.39, "the fault did not happen"
    assert (ledger.waits[[0, 2], 1] > 0.3).all()
    assert [change.step for change in paused.history.changes] == [4]


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(4), ParameterServer()], ids=repr)
@pytest.mark.parametrize("fault", [Latency(1, 0.02), Bandwidth(1, 20_000)], ids=lambda fault: type(fault).__name__)
def test_a_bad_network_costs_time_on_the_way(train, strategy, fault):
    settings = {"workers": 2, "shards": 2}
    plain, bad = (trained(train, strategy, broken, **settings) for broken in ((), [fault]))
    if strategy.synchronous:
        assert_array_equal(bad.params, plain.params)
    ledger = Ledger(bad.history)
    exchanges = int(ledger.updates[1]) if strategy == ParameterServer() else 13 // getattr(strategy, "period", 1)
    least = exchanges // 2 * 0.01  # a frame has at least 200 bytes; of two sums in a row one may come in time
    assert ledger.comm[:2].max() > 0.9 * least, "the fault did not happen"
    assert [text for _, text in bad.history.marks] == [repr(fault)]
    (change,) = bad.history.changes
    assert (change.kind, change.rank, fault_from(change.fault)) == ("fault", 1, fault)


def test_what_ends_is_over():
    plans = [(), [Slow(1, factor=2000, step=6, until=7)], [Slow(1, factor=2000, step=6)]]
    plain, once, always = (Ledger(trained(harness.on_threads, broken=plan).history) for plan in plans)
    gradient = plain.compute[1] / plain.updates[1]
    assert once.compute[1] > 100 * gradient, "the fault did not happen"
    assert always.compute[1] > 3 * once.compute[1], "it was to last for seven steps, not for one"


def test_the_last_one_given_counts():
    plan = [Slow(1, 1e6), Slow(1, 1)]
    plain, lifted = (trained(harness.on_threads, broken=broken) for broken in ((), plan))
    assert Ledger(lifted.history).compute[1] < 1000 * Ledger(plain.history).compute[1]
    network = [Latency(1, 1000.0), Bandwidth(1, 1e-3), Latency(1, 0.0), Bandwidth(1, math.inf)]
    assert_array_equal(trained(harness.on_threads, broken=network).params, plain.params)


@pytest.mark.parametrize("part", ["payload", "header"])
def test_an_altered_frame_is_found_on_threads(part):
    with pytest.raises(CorruptFrame, match="rank 0 got a corrupt frame from rank 1") as caught:
        trained(harness.on_threads, broken=[faults.CorruptFrame(1, to=0, step=5, part=part)])
    assert (caught.value.rank, caught.value.peer) == (0, 1)


def test_a_cut_link_is_found_on_threads():
    with pytest.raises(PeerLost, match="lost rank") as caught:
        trained(harness.on_threads, broken=[DropLink(1, to=0, step=5)])
    assert caught.value.step == 5


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(3), ParameterServer()], ids=repr)
@pytest.mark.parametrize("part", ["payload", "header"])
def test_an_altered_frame_names_ranks_worker_and_step(cluster, strategy, part):
    to = RANKS if strategy == ParameterServer() else 0
    broken = [faults.CorruptFrame(1, to=to, step=6, part=part)]
    with pytest.raises(RunFailed) as caught:
        trained(harness.on_workers, strategy, broken, epochs=100_000, on_worker_lost="raise")
    words = str(caught.value)
    assert words.startswith(f"rank {to} on worker tls://")
    assert f"rank {to} got a corrupt frame from rank 1" in words
    if strategy == AllReduce():
        assert "failed at step 6: " in words
    if part == "payload":
        assert "at its step " in words


def test_a_cut_link_names_ranks_and_step(cluster):
    with pytest.raises(RunFailed, match=r"lost rank . on worker tls://.* failed at step 6: .* lost rank"):
        trained(harness.on_workers, broken=[DropLink(1, to=0, step=6)], on_worker_lost="raise")


@pytest.mark.parametrize("fault", [DropLink(1, to=0, step=6), faults.CorruptFrame(1, to=0, step=6)], ids=repr)
def test_links_are_made_again_that_were_cut_or_altered_a_frame(cluster, fault):
    run = trained(harness.on_workers, broken=[fault]).run
    assert run.history.marks[-1][1].startswith("links lost and made again: lost at step ")
    assert_array_equal(run.params, trained(harness.on_workers).params)


def test_faults_come_and_go_in_mid_run(cluster):
    x, y, _ = made("binary")
    settings = {"workers": 2, "epochs": 100_000, "batch_size": BATCH, "on_worker_lost": "raise"}
    run = scaleml.start(linear("binary"), x, y, strategy=AllReduce(), **settings)

    def steps():
        return int(run.history["step"].max(initial=0))

    def some_steps():
        first = steps()
        assert harness.await_condition(lambda: steps() >= first + 10)

    pairs = [
        (Latency(1, 0.1), Latency(1, 0.0)),
        (Bandwidth(0, 2_000), Bandwidth(0, math.inf)),
        (Slow(1, 3000), Slow(1, 1)),
    ]
    for fault in chain.from_iterable(pairs):
        run.inject(fault)
        some_steps()
    run.inject(Pause(1, 0, 0.3))
    run.inject(faults.CorruptFrame(0, to=1, step=0))
    with pytest.raises(RunFailed, match="rank 1 got a corrupt frame from rank 0"):
        run.wait(30)
    changes = run.history.changes
    a_step = [(b.time - a.time) / (b.step - a.step) for a, b in pairwise(changes[:7])]
    for fault, under, after in zip(pairs, a_step[::2], a_step[1::2], strict=True):
        assert under > 0.04, f"{fault} did not happen"
        assert under > after, f"{fault} was not lifted"
    texts = [change.text for change in changes]
    assert [text.partition("(")[0] for text in texts] == [
        "Latency", "Latency", "Bandwidth", "Bandwidth", "Slow", "Slow", "Pause", "CorruptFrame",
    ]  # fmt: skip
    assert all(change.step > 0 for change in changes)
    assert "CorruptFrame(rank=0, to=1" in run.summary()


@pytest.mark.parametrize(
    "fault",
    [Slow(1, 4, 2, 9), Pause(0, 1, 0.5), Latency(0, 0.1, to=1), Bandwidth(0, math.inf), DropLink(0, 1, 2),
     faults.CorruptFrame(0, 1, 2, "header"), faults.Crash(0, 1), Kill(0, 1, allow_kill=True)],
    ids=repr,
)  # fmt: skip
def test_faults_travel(fault):
    command = Command.decode(Command(1, "inject", describe(fault)).encode())
    assert rebuild(command.settings) == fault


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Slow(-1, 2), "rank=-1"),
        (lambda: Slow(0, 0.5), "factor=0.5"),
        (lambda: Slow(0, 2, until=1.5), "until=1.5"),
        (lambda: Pause(0, 1, -1), "seconds=-1"),
        (lambda: Pause(0, 1, math.inf), "seconds=inf"),
        (lambda: Latency(0, "long"), "seconds='long'"),
        (lambda: Latency(0, math.nan), "seconds=nan"),
        (lambda: Latency(1, 0.1, to=1), "to=1"),
        (lambda: Bandwidth(0, 0), "bytes_per_second=0"),
        (lambda: DropLink(0, 0, 1), "to=0"),
        (lambda: DropLink(0, None, 1), "to=None"),
        (lambda: faults.CorruptFrame(0, 1, 1, "trailer"), "part='trailer'"),
        (lambda: faults.rotating(1, 10, 2, 4), "workers=1"),
        (lambda: faults.rotating(2, 10, 0, 4), "every=0"),
    ],
)
def test_wrong_values_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_ranks_take_turns_by_seed():
    plan = faults.rotating(4, steps=100, every=7, factor=3, seed=5)
    assert plan == faults.rotating(4, steps=100, every=7, factor=3, seed=5)
    assert plan != faults.rotating(4, steps=100, every=7, factor=3, seed=6)
    for step in range(100):
        assert sum(slow.active(step) for slow in plan) == 1
    assert all(a.rank != b.rank for a, b in pairwise(plan))
    assert {slow.rank for slow in plan} == set(range(4))
    assert np.isclose(plan[0].factor, 3)


def test_what_a_run_does_not_have_is_refused(cluster):
    x, y, _ = made("binary")
    for fault, words in [
        (Slow(2, 2), "there are 2 ranks"),
        (Latency(0, 0.1, to=2), "Latency.* 2 ranks"),
        (DropLink(0, 5, 1), "to=5"),
    ]:
        with pytest.raises(ValueError, match=words):
            scaleml.start(linear("binary"), x, y, strategy=AllReduce(), workers=2, faults=[fault])


def test_ranks_log_the_faults_that_begin_and_the_commands_that_they_apply(caplog):
    with caplog.at_level("DEBUG", "scaleml.runtime"):
        told(("update", {"learning_rate": 0.1}), faults=[Slow(rank=1, factor=2, step=1)])
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "begins" in text] == [
        f"rank 1: {Slow(rank=1, factor=2, step=1)!r} begins at step 1"
    ]
    assert len([text for text in said if "applies command 1, update" in text]) == 3
