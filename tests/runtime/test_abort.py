"""Ranks that are aborted end within a step, whatever they talk to: every strategy, with and without evaluations."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from family.strategies import STRATEGIES
from runtime import harness
from runtime.test_strategies import linear, made
from scaleml.comm import Aborted, PeerLost
from scaleml.faults import Slow
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.strategies import Serial

RANKS, AT = 2, 5


@pytest.mark.parametrize("evaluates", [False, True], ids=["without held-out data", "with held-out data"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_an_aborted_rank_takes_no_further_step(strategy, evaluates):
    x, y, _ = made("multiclass")
    worlds, late, aborted = [], Counter(), threading.Event()

    def prepare(loop):
        worlds.append(loop.world if isinstance(loop, ServerLoop) else loop.rank.world)

    def hook(rank, step, _):
        if aborted.is_set():
            late[rank] += 1
            assert late[rank] == 1, "more than the gradient that was under way when the rank was aborted"
        elif rank == 0 and step == AT:
            for world in worlds:
                world.abort("nobody wants it")
            aborted.set()

    with pytest.raises((Aborted, PeerLost)):  # whose turn comes last may see the others leave before
        harness.on_threads(
            linear("multiclass"), x, y, strategy=strategy, workers=RANKS, epochs=10**9,
            validation=(x, y) if evaluates else None, hook=hook, prepare=prepare,
        )  # fmt: skip
    assert len(worlds) == strategy.layout(RANKS).size
    assert late[0] == 0


def test_a_rank_that_a_fault_holds_up_is_aborted_in_its_sleep():
    x, y, _ = made("binary")
    worlds, aborted = [], []

    def hook(rank, step, _):
        if step == AT:
            abort = threading.Timer(0.01, lambda: aborted.append(worlds[0].abort("nobody wants it")))
            abort.start()

    with pytest.raises(Aborted):  # else this would take years
        harness.on_threads(
            linear("binary"), x, y, strategy=Serial(), epochs=10**9, hook=hook,
            faults=[Slow(0, factor=1e12, step=AT - 1)], prepare=lambda loop: worlds.append(loop.rank.world),
        )  # fmt: skip
    assert aborted
