"""A user's own strategies, of each kind: some lines each, and they train, are compared and have controls in the lab."""

from __future__ import annotations

from dataclasses import dataclass
from html import unescape

import numpy as np
import pytest

import scaleml
from lab.clicking import finished
from scaleml.strategies import Layout, Strategy
from scaleml.strategies.base import ServerStrategy


def signs():
    """All ranks agree on the sign of each gradient by majority vote."""

    @dataclass(frozen=True, repr=False)
    class MajorityVote(Strategy):
        size: float = 1.0

        def step(self, w, state, ctx):
            g = ctx.gradient(w)
            votes = np.sign(g[:-3])
            ctx.group.allreduce(votes)
            ctx.group.allreduce(tail := g[-3:])
            g[:-3] = self.size * tail[1] * np.sign(votes)
            ctx.optimizer.apply(w, g, state)

    return MajorityVote(size=0.5)


def on_one_vector():
    """Ranks on one vector in shared memory, of which each writes one half at a time."""

    @dataclass(frozen=True, repr=False)
    class Halves(Strategy):
        replicated = synchronous = False
        shares_memory = True
        even: bool = True

        def step(self, w, state, ctx):
            g = ctx.gradient(w)
            rows = g[-3:].copy()
            g[ctx.step % 2 == self.even : -3 : 2] = 0
            g[-3:] = rows
            ctx.optimizer.apply(w, g, state)
            ctx.shared.count(g)

    return Halves(even=False)


def with_a_server():
    """A server that forgets pushes that are too stale."""

    @dataclass(frozen=True, repr=False)
    class Forgetful(ServerStrategy):
        ahead = float("inf")
        most: int = 10

        def layout(self, workers):
            return Layout(workers, 1)

        def step(self, w, state, ctx):
            ctx.servers.push(ctx.gradient(w), w)
            ctx.servers.pull(w)

        def serve(self, w, state, ctx):
            push = ctx.clients.receive()
            if push is not None and push.staleness <= self.most:
                ctx.optimizer.apply(w, push.gradient, state)
                ctx.clients.applied(push)
            ctx.clients.answer(w, self.ahead)

    return Forgetful(most=5)


@pytest.mark.parametrize("made", [signs, on_one_vector, with_a_server])
def test_a_strategy_of_ones_own_is_compared_and_stands_in_the_lab(lab, made):
    strategy = made()
    lab = finished(lab(strategies=[scaleml.Serial(), strategy], epochs=12))
    assert {run.state for run in lab.runs} == {"finished"}, [run.error for run in lab.runs]
    table = lab.result.table().set_index("strategy")
    assert repr(strategy) in unescape(lab._board.found.value)
    assert table["loss"][repr(strategy)] < 0.6 < np.log(2)
    row = next(row for row in lab._setup.rows if type(strategy) is row.form.kind)
    assert row.tick.value
    assert row.form.value() == strategy
