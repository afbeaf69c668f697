"""Workers that serve themselves through memory that they share: what a server would have done, to the bit and to the last push."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import inf

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime import harness
from runtime.test_parameter_server import totals
from runtime.test_strategies import BATCH, EPOCHS, ROWS, linear, made
from scaleml.compression import FP16
from scaleml.faults import Latency, Slow
from scaleml.optim import SGD, Adam
from scaleml.runtime.commands import Command
from scaleml.runtime.parameter_server.message_format import GRADIENT, LEAVE, DenseFormat
from scaleml.runtime.parameter_server.shared_client import SharedMemoryClient
from scaleml.runtime.serialization import describe
from scaleml.strategies import Layout, ParameterServer, Serial
from scaleml.strategies.base import ServerStrategy
from scaleml.telemetry import Ledger

PUSHES = EPOCHS * -(-ROWS // BATCH)


@pytest.fixture
def told(monkeypatch):
    """The kinds of messages that workers send to servers that know whole vectors."""
    kinds, real = [], DenseFormat.send

    def send(form, head, *rest):
        kinds.append(head.kind)
        real(form, head, *rest)

    monkeypatch.setattr(DenseFormat, "send", send)
    return kinds


@pytest.fixture
def served(monkeypatch):
    """For each push to shared memory, whether that was open."""
    found, real = [], SharedMemoryClient.push

    def push(client, *rest):
        found.append(real(client, *rest))
        return found[-1]

    monkeypatch.setattr(SharedMemoryClient, "push", push)
    return found


def run(strategy, workers=2, optimizer=None, **settings):
    x, y, _ = made("binary")
    return harness.on_threads(
        linear("binary"), x, y, strategy=strategy, optimizer=optimizer or SGD(0.1), workers=workers, epochs=EPOCHS,
        batch_size=BATCH, **settings,
    )  # fmt: skip


def accounted(result, workers, servers):
    """Check that every push was applied once by every server, and that staleness adds up."""
    pushes, rows, staleness = totals(result, workers)
    v = pushes[:workers].sum()
    assert_array_equal(pushes[workers:], v)
    assert EPOCHS * ROWS <= rows < EPOCHS * ROWS + workers * (BATCH // workers + 1)
    expected = (workers - 1) * v - workers * (workers - 1) / 2
    assert_array_equal(staleness[[*range(workers, workers + servers)]].round(6)[-1], expected)
    assert staleness[:workers].sum() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("strategy", [ParameterServer(servers=2), ParameterServer(overlap=True)], ids=repr)
def test_no_push_travels_where_memory_is_shared(told, served, strategy):
    result = run(strategy, workers=3)
    pushes = strategy.servers * totals(result, 3)[0][:3].sum()
    last = strategy.servers * (1 + strategy.overlap) * 2
    assert told.count(GRADIENT) <= last, "only the last ones of the two who leave after the first"
    assert told.count(LEAVE) == strategy.servers * 3
    assert sum(served) == pushes - told.count(GRADIENT)


@pytest.mark.parametrize(
    "strategy",
    [ParameterServer("bsp"), ParameterServer("ssp", staleness=1), ParameterServer(compression=FP16())],
    ids=repr,
)
def test_who_may_have_to_wait_sends_messages(served, strategy):
    assert run(strategy).state == "finished"
    assert served == []


def test_hosts_that_share_no_memory_send_messages(told, served):
    result = run(ParameterServer(), shared_memory=False)
    assert served == []
    assert told.count(GRADIENT) == totals(result, 2)[0][:2].sum()


TROUBLES = {
    "a worker's link": {"faults": [Latency(0, 1e-4, step=7)]},
    "the server, told in mid-run": {"commands": [(7, Command(1, "inject", describe(Slow(1, 1.0))))]},
    "the server's link": {"commands": [(7, Command(1, "inject", describe(Latency(1, 1e-4))))]},
    "the server, from the start": {"faults": [Slow(1, 1.0, step=7)]},
}


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("trouble", list(TROUBLES))
def test_shared_memory_that_is_closed_in_mid_run_changes_nothing(told, served, trouble, overlap):
    optimizer = Adam(0.02, schedule="invscaling")
    strategy = ParameterServer(overlap=overlap)
    plain = run(strategy if overlap else Serial(), workers=1, optimizer=optimizer)
    del told[:], served[:]
    result = run(strategy, workers=1, optimizer=optimizer, **TROUBLES[trouble])
    assert_array_equal(result.params, plain.params)
    pushes = totals(result, 1)[0]
    assert_array_equal(pushes, PUSHES + overlap)
    # What is told during a step acts from the next one on.
    shared = 0 if "from the start" in trouble else 7
    assert sum(served) == shared
    assert told.count(GRADIENT) == PUSHES + overlap - shared
    assert len(result.history.marks) == 1, "the fault did not happen"


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("rank", [0, 2])
def test_every_push_counts_once_when_shared_memory_closes(told, served, rank, servers):
    closed = threading.Event()

    def hold(who, step, command_queue):  # the others, who else might have had all rows before
        if who == rank and step == 7:
            closed.set()
        assert who == rank or step != 3 or closed.wait(60)

    result = run(ParameterServer(servers=servers), workers=3, faults=[Latency(rank, 1e-4, step=5)], hook=hold)
    accounted(result, 3, servers)
    assert any(served)
    assert told.count(GRADIENT) + sum(served) == servers * totals(result, 3)[0][:3].sum()
    assert told.count(GRADIENT), "the shared server was not closed"


@dataclass(frozen=True, repr=False)
class Halving(ServerStrategy):
    """Of two pushes the server takes one, and says so in its optimizer's state."""

    ahead = inf
    at_once: bool = True

    @property
    def answers_at_once(self):
        return self.at_once

    def layout(self, workers):
        return Layout(workers, 1)

    def step(self, w, state, ctx):
        ctx.servers.push(ctx.gradient(w), w)
        ctx.servers.pull(w)

    def serve(self, w, state, ctx):
        push = ctx.clients.receive()
        if push is not None and push.source == 0:
            ctx.optimizer.apply(w, push.gradient, state)
            ctx.clients.applied(push)
        ctx.clients.answer(w, self.ahead)


def test_a_strategy_of_ones_own_says_whether_it_answers_at_once(served):
    shared = run(Halving(), workers=1, optimizer=SGD(0.1, momentum=0.9))
    assert len(served) == PUSHES
    by_message = run(Halving(at_once=False), workers=1, optimizer=SGD(0.1, momentum=0.9))
    assert len(served) == PUSHES
    assert_array_equal(shared.params, by_message.params)
    both = run(Halving(), workers=2)
    pushes = totals(both, 2)[0]
    assert pushes[2] == pushes[0], "only those of rank 0 were to be applied"


@dataclass(frozen=True, repr=False)
class Failing(Halving):
    """Its server fails after ten pushes."""

    def serve(self, w, state, ctx):
        ctx.optimizer.apply(w, ctx.clients.receive().gradient, state)
        if ctx.optimizer.state.updates == 10:
            raise RuntimeError("cannot serve")
        ctx.clients.answer(w, self.ahead)


def test_a_server_that_fails_ends_the_run():
    with pytest.raises(RuntimeError, match="cannot serve"):
        run(Failing(), workers=3)


def test_no_time_is_lost_from_the_ledger_where_a_worker_stays_in_shared_memory(monkeypatch):
    here, real, spent = threading.Event(), SharedMemoryClient.answer, 0.3

    def answer(client, w, ahead):
        if client._rank == 1 and not here.is_set():
            here.set()
            threading.Event().wait(spent)
        real(client, w, ahead)

    def hold(rank, step, command_queue):  # or it might have had all rows before
        assert rank or step != 3 or here.wait(60)

    monkeypatch.setattr(SharedMemoryClient, "answer", answer)
    result = run(ParameterServer(), workers=2, hook=hold)
    ledger = Ledger(result.history)
    assert ledger.comm[1] > 0.9 * spent
    rank, time = result.history["rank"], result.history["time"]
    np.testing.assert_allclose(ledger.wall, [time[rank == r].max() for r in range(3)], rtol=0.02)
