"""The words blame the rank that was slowed, and name what it cost: against the same run undisturbed."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

import scaleml
from lab.measuring import agree
from runtime import harness
from scaleml.faults import Bandwidth, DropLink, Latency, Slow
from scaleml.lab.progress_bar import counted
from scaleml.lab.slow_links import SlowLinks
from scaleml.lab.trace import Trace
from scaleml.lab.words import blame, line
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer
from scaleml.telemetry import History, Ledger
from scaleml.telemetry.formatting import seconds
from scaleml.telemetry.place import Place
from telemetry_fakes import made, row

GRADIENT = 0.03
"""Seconds that every gradient takes here: asleep, so that a busy machine does not decide who is slow."""


def timed(strategy, workers=2, faults=(), epochs=3):
    """Return the history of a run, and how long the gradients of each rank really slept."""
    random = np.random.default_rng(0)
    x = random.standard_normal((240, 4), dtype=np.float32)
    never, slept = threading.Event(), {rank: [] for rank in range(workers)}

    def sleep(rank, step, command_queue):
        begin = time.perf_counter()
        never.wait(GRADIENT)
        if step:
            slept[rank].append(time.perf_counter() - begin)

    done = harness.on_threads(
        scaleml.LinearModel(), x, (x[:, 0] > 0).astype(int), strategy=strategy, workers=workers, epochs=epochs,
        batch_size=80, faults=faults, hook=sleep,
    )  # fmt: skip
    return done.history, slept


@lru_cache
def trained(*run, **settings):
    return timed(*run, **settings)[0]


def seen(history, **attributes):
    run = made("x", rate=1.0, steps=2)
    run.history = history
    vars(run).update(attributes)
    trace = Trace(run, window=1e9)
    trace.look()
    return trace


def told(history, time, fault):
    """Mark a fault as a rank tells of it."""
    history.mark(time, repr(fault), 0, "fault", fault.rank, describe(fault))


def clock(history):
    return float(history["time"].max())


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(2)], ids=repr)
@pytest.mark.parametrize(("workers", "slow"), [(2, 1), (2, 0), (3, 1)])
def test_the_rank_that_was_slowed_is_blamed_with_what_it_cost(strategy, workers, slow):
    history, slept = timed(strategy, workers, faults=(Slow(slow, factor=4),))
    trace = seen(history)
    found = blame(trace.total, trace.recent)
    assert found is not None
    assert found.rank == slow
    mine, *others = np.mean([slept.pop(slow), *slept.values()], axis=1)
    assert found.ratio == pytest.approx(4 * mine / np.median(others), rel=0.2)

    def cost():
        again = timed(strategy, workers, faults=(Slow(slow, factor=4),))[0]
        return blame(seen(again).total, seen(again).total).cost, clock(again), clock(timed(strategy, workers)[0])

    assert agree(cost) == []
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


# Slow enough that what else a busy machine holds up is little beside it.
LINKS = {
    "latency": (Latency(1, 0.15), "What rank 1 sends arrives 150 ms later: "),
    "bandwidth": (Bandwidth(1, 700.0), "Rank 1 sends at most 700 B a second: "),
    "of rank 0": (Latency(0, 0.15), "What rank 0 sends arrives 150 ms later: "),
    "one link": (Latency(1, 0.15, to=0), "What rank 1 sends to rank 0 arrives 150 ms later: "),
}


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(2), ParameterServer("bsp")], ids=repr)
@pytest.mark.parametrize("name", LINKS)
def test_slow_links_are_named_with_what_they_cost(strategy, name):
    fault, words = LINKS[name]
    to = getattr(fault, "to", None)
    if to is not None and isinstance(strategy, ParameterServer):
        fault, words = replace(fault, to=2), words.replace("to rank 0", "to rank 2")
    history = trained(strategy, faults=(fault,))
    trace = seen(history, state="running")
    said = trace.links.sentence(trace.total)
    assert said is not None
    assert line(trace).count(words) == 1
    cost = [trace.links.cost(rank) for rank in range(2)]

    def mean_cost():
        again = timed(strategy, faults=(fault,))[0]
        links = seen(again).links
        return np.mean([links.cost(rank) for rank in range(2)]), clock(again), clock(timed(strategy)[0])

    assert agree(mean_cost) == []
    assert f"communication has taken each rank {seconds(float(np.mean(cost)))}" in said


def test_slow_links_that_only_their_own_rank_pays_for():
    trace = seen(trained(ParameterServer("async"), faults=(Latency(1, 0.15),)))
    said = trace.links.sentence(trace.total)
    assert said is not None
    assert f"communication has taken rank 1 {seconds(trace.links.cost(1))}" in said
    assert trace.links.cost(0) < 0.5 * trace.links.cost(1)


def test_the_cost_of_slow_links_is_what_they_took_beyond_the_usual_and_ends_with_them():
    """Steps of 1 s with 0.1 s of communication, and with 0.6 s from 10 s to 20 s, told of a little early."""
    run = made("x", 2, steps=1, seconds=1e-3, state="running")
    run.history = type(run.history)()
    trace = Trace(run, window=1e9)
    for step in range(1, 31):
        if step == 11:
            told(run.history, 10.0, Bandwidth(1, 5.0))
        if step == 21:
            assert "1 sends at most 5 B a second: that has cost each rank 5 s" in trace.links.sentence(trace.total)
            told(run.history, 20.0, Bandwidth(1, math.inf))
        comm = 0.6 if 10 < step <= 20 else 0.1
        rows = [row(rank, step=step, time=step, samples=8 * step, compute=1.0 - comm, comm=comm) for rank in range(2)]
        run.history.append_rows(rows)
        trace.look()
    assert [trace.links.cost(rank) for rank in range(2)] == pytest.approx([5.0, 5.0])
    assert (
        trace.links.sentence(trace.total) == "links were slow for a while: that has cost each rank 5 s of communication"
    )


def test_other_changes_are_no_slow_links():
    links = SlowLinks()
    history = History()
    history.mark(1.0, "learning_rate=0.1")
    told(history, 2.0, Slow(1, 4))
    told(history, 3.0, DropLink(1, 0, 5))
    links.hear(history.changes)
    assert links.slow == {}
    assert links.sentence(seen(trained(AllReduce())).total) is None


def met(compute):
    """Return what is said of ranks that meet after every step: each waits for the last; seconds of computing, (steps, ranks)."""
    run, clock = made("x"), 0.0
    run.history = type(run.history)()
    for step, parts in enumerate(np.asarray(compute), 1):
        last = int(np.argmax(parts))
        clock += parts[last]
        run.history.append_rows([
            row(rank, step=step, time=clock, samples=8 * step, compute=part, wait=parts[last] - part,
                waited_for=-1 if rank == last else last)
            for rank, part in enumerate(parts)
        ])  # fmt: skip
    trace = Trace(run, window=1e9)
    return blame(trace.total, trace.recent)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_nobody_is_blamed_where_nobody_was_slow(ranks):
    for seed in range(20):
        assert met(GRADIENT * np.random.default_rng(seed).lognormal(0, 0.3, (200, ranks))) is None


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_an_operating_system_holds_up_once_is_no_slow_rank(ranks):
    steps = np.full((9, ranks), GRADIENT)
    steps[4, 1] += 0.06  # a fifth of all the time
    assert met(steps) is None
    steps[4, 1] += 0.06
    assert met(steps).rank == 1
    assert met(steps).cost == pytest.approx(0.12)


def test_a_slow_rank_is_blamed_from_the_first_steps_on():
    found = met([[0.01, 0.02]] * 3)
    assert found.rank == 1
    assert found.cost == pytest.approx(0.03)
    assert found.ratio == pytest.approx(2)


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


def test_runs_before_the_rounds_are_counted_apart():
    places = [None, Place("one", 0, "warm-up"), Place("one", 0, "tuning"), Place("one", 0, "round")]
    runs = [SimpleNamespace(place=place) for place in places]
    assert counted(runs) == "4 runs, 2 of them before the rounds"
    assert counted(runs[:1]) == "1 run"
