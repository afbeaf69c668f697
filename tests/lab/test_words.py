"""The words blame the rank that was slowed, and name what it cost: against the same run undisturbed."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import pytest

import scaleml
from engine import harness
from scaleml.faults import Slow
from scaleml.lab.trace import Trace
from scaleml.lab.words import blame, line
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer
from scaleml.telemetry import Ledger
from telemetry_fakes import made, row

GRADIENT = 0.03
"""Seconds that every gradient takes here: asleep, so that a busy machine does not decide who is slow."""


@lru_cache
def trained(strategy, workers=2, faults=(), epochs=3):
    random = np.random.default_rng(0)
    x = random.standard_normal((240, 4), dtype=np.float32)

    def sleep(rank, step, mailbox):
        time.sleep(GRADIENT)

    return harness.on_threads(
        scaleml.LinearModel(), x, (x[:, 0] > 0).astype(int), strategy=strategy, workers=workers, epochs=epochs,
        batch_size=80, faults=faults, hook=sleep,
    ).history  # fmt: skip


def seen(history, **attributes):
    run = made("x", rate=1.0, steps=2)
    run.history = history
    vars(run).update(attributes)
    trace = Trace(run, window=1e9)
    trace.look()
    return trace


def clock(history):
    return float(history["time"].max())


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(2)], ids=repr)
@pytest.mark.parametrize(("workers", "slow"), [(2, 1), (2, 0), (3, 1)])
def test_the_rank_that_was_slowed_is_blamed_with_what_it_cost(strategy, workers, slow):
    undisturbed = clock(trained(strategy, workers))
    history = trained(strategy, workers, faults=(Slow(slow, factor=4),))
    trace = seen(history)
    found = blame(trace.total, trace.recent)
    assert found is not None
    assert found.rank == slow
    assert found.ratio == pytest.approx(4, rel=0.2)
    assert found.cost == pytest.approx(clock(history) - undisturbed, rel=0.2)
    assert f"for rank {slow}, which computes {found.ratio:.1f} times as long" in found.sentence


def test_a_slow_rank_that_nobody_waits_for_is_named_as_such():
    history = trained(ParameterServer("async"), faults=(Slow(1, factor=4),))
    found = blame(seen(history).total, seen(history).recent)
    assert found is not None
    assert found.rank == 1
    assert "nobody waits for it" in found.sentence
    share = float(found.sentence.rpartition(" gave ")[2].partition("%")[0]) / 100
    updates = seen(history).total.updates
    assert share == pytest.approx(updates[1] / updates[:2].sum(), abs=0.01)


def test_nobody_is_blamed_where_nobody_was_slow():
    trace = seen(trained(AllReduce()))
    assert blame(trace.total, trace.recent) is None


def test_the_slow_one_of_the_last_seconds_is_blamed_not_of_long_ago():
    history = made("x", 2, straggler=0, steps=100, seconds=10.0).history
    late = [row(rank, step=101, time=10.0 + 5.0, samples=9000, compute=4.9 if rank else 1.0, wait=0.0 if rank else 3.9,
                waited_for=-1 if rank else 1) for rank in range(2)]  # fmt: skip
    history.append_rows(late)
    run = made("x")
    run.history = history
    trace = Trace(run, window=3.0)
    trace.look()
    found = blame(trace.total, trace.recent)
    assert found is not None
    assert found.rank == 1
    assert found.cost == pytest.approx(3.9)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("starting", "is starting"),
        ("running", "trains on"),
        ("paused", "is paused after 10 s"),
        ("finished", "has finished after 10 s"),
        ("stopped", "was stopped after 10 s"),
        ("failed", "failed: rank 1 was lost"),
    ],
)
def test_every_state_has_its_words(state, words):
    run = made("AllReduce()", 2, state=state, error="rank 1 was lost" if state == "failed" else None)
    trace = Trace(run)
    trace.look()
    assert words in line(trace)


def test_the_trace_sums_what_the_ledger_sums():
    run = made("AllReduce()", 3, straggler=2, steps=3_000, staleness=1.5, state="running")
    parts = run.history.rows
    run.history = type(run.history)()
    trace = Trace(run)
    for part in np.array_split(parts, 37):
        run.history.append_rows(part)
        assert trace.look()
    assert not trace.look(), "nothing is new"
    mine, whole = trace.total, Ledger(run.history)
    for name in (
        "ranks",
        "compute",
        "wait",
        "comm",
        "apply",
        "other",
        "wall",
        "updates",
        "samples",
        "staleness",
        "waits",
    ):
        np.testing.assert_allclose(getattr(mine, name), getattr(whole, name), err_msg=name)
    # The curves grew with the rows, and are what all rows together say.
    time, rate = trace.throughput()
    np.testing.assert_allclose(rate, 1000.0, rtol=1e-6)
    assert 32 <= len(time) - 2 <= 64
    assert time[-1] == pytest.approx(10.0, rel=0.05)
    time, stale = trace.staleness()
    np.testing.assert_allclose(stale, 1.5)
    assert 32 <= len(time) <= 64
