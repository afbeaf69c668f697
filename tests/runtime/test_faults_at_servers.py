"""What is broken at a server breaks there: its steps are its updates, and whoever waits for it says so."""

from __future__ import annotations

import pytest

import scaleml
from runtime import harness
from runtime.test_faults import trained
from runtime.test_strategies import BATCH, linear, made
from scaleml import RunFailed
from scaleml.faults import CorruptFrame, Crash, DropLink, Latency, Pause, Slow
from scaleml.strategies import ParameterServer
from scaleml.telemetry import Ledger

SERVER = 2
BOTH = pytest.mark.parametrize("strategy", [ParameterServer(), ParameterServer("bsp")], ids=repr)
SETTINGS = {"workers": 2, "shards": 2}


@BOTH
def test_a_slow_server_applies_slowly(strategy, storage):
    x, y, _ = made("binary")
    settings = {"strategy": strategy, "workers": 2, "epochs": 1, "batch_size": BATCH}
    fault = Slow(SERVER, factor=300, step=2, until=10)
    plain, slow = (
        harness.on_threads(linear("binary"), storage(x), y, faults=broken, **settings) for broken in ((), (fault,))
    )
    ledgers = [Ledger(result.history) for result in (plain, slow)]
    assert ledgers[1].apply[SERVER] > 10 * ledgers[0].apply[SERVER], "the fault did not happen"
    assert slow.history.marks == [(slow.history.marks[0][0], repr(fault))]


@BOTH
def test_a_paused_server_is_waited_for(train, strategy):
    result = trained(train, strategy, [Pause(SERVER, step=4, seconds=0.4)], **SETTINGS)
    ledger = Ledger(result.history)
    assert ledger.other[SERVER] >= 0.39, "the fault did not happen"
    assert (ledger.waits[:2, SERVER] > 0.3).any()
    assert [change.step for change in result.history.changes] == [4]


def test_the_way_from_a_server_is_long(train):
    ledger = Ledger(trained(train, ParameterServer(), [Latency(SERVER, 0.02, to=1)], **SETTINGS).history)
    assert ledger.comm[1] > 0.9 * 0.02 * ledger.updates[1], "the fault did not happen"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Crash(SERVER, 5), r"rank 2 on worker tls://.* failed at step 5: InjectedCrash"),
        (CorruptFrame(SERVER, to=0, step=5), "rank 0 got a corrupt frame from rank 2"),
        (DropLink(SERVER, to=1, step=5), "lost rank"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_run_ends_it_with_its_cause(cluster, fault, words):
    with pytest.raises(RunFailed, match=words):
        trained(harness.on_workers, ParameterServer(), [fault], **SETTINGS, epochs=100_000, on_worker_lost="raise")


def test_a_server_is_told_in_mid_run(cluster):
    x, y, _ = made("binary")
    run = scaleml.start(linear("binary"), x, y, strategy=ParameterServer(), workers=2, epochs=100_000, batch_size=BATCH)
    assert harness.await_condition(lambda: run.history["step"].max(initial=0) > 5)
    run.inject(Crash(SERVER, step=0))
    with pytest.raises(RunFailed, match=r"rank 2 .* InjectedCrash"):
        run.wait(30)
    with pytest.raises(ValueError, match="those from 2 on are servers"):
        scaleml.start(linear("binary"), x, y, strategy=ParameterServer(), workers=2, faults=[Slow(3, 2)])
