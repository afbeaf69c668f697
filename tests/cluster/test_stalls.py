"""A stopped process is found, replaced and kept out, and does no harm when it wakes; a long step is no stall; on real workers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import dask
import pytest
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from cluster.test_recovery import SETTINGS, X, Y, drop_scheduler, often, recoveries, started, until
from embedded import embedded
from runtime.aftermath import Watch
from scaleml.cluster import calls, process_state
from scaleml.cluster.heartbeat import process_states
from scaleml.cluster.stalled_workers import StalledWorkers
from scaleml.faults import Pause
from scaleml.models import LinearModel, Model, Network
from scaleml.optim import SGD
from scaleml.strategies import AllReduce, Serial, Strategy

cloudpickle.register_pickle_by_value(sys.modules[__name__])
LONG = 10**6


@pytest.fixture(scope="module")
def cluster() -> Client:
    client = embedded(4)
    often(client)
    return client


@pytest.fixture
def watch(cluster: Client) -> Iterator[Watch]:
    cluster.wait_for_workers(4, timeout=30)
    scaleml.train(scaleml.MLP((4,)), X, Y, workers=4, **SETTINGS)  # what a process keeps from its first run is no leak
    made = Watch(cluster)
    with dask.config.set({"scaleml.comm.timeout": "1s"}):
        yield made
    cluster.wait_for_workers(4, timeout=30)
    made.nothing_left()


@contextlib.contextmanager
def stopped(client: Client, run: scaleml.Run, rank: int, *, nanny: bool = False) -> Iterator[str]:
    """Stop the process of a rank's worker, and its nanny's; continue them at the end, if they are there still."""
    until(lambda: run.over or len(run.history) > 3)
    address = run._driver.placement.addresses[rank]
    which = [False, True] if nanny else [False]
    processes = [client.run(os.getpid, workers=[address], nanny=one)[address] for one in which]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield address
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize(("strategy", "rank", "nanny"), [(Serial(), 0, False), (AllReduce(), 1, True)], ids=str)
def test_a_stopped_worker_is_replaced_and_the_bits_are_the_same(
    watch: Watch, cluster: Client, strategy: Strategy, rank: int, nanny: bool
) -> None:
    """Also where its nanny is stopped with it."""
    undisturbed = started(strategy).wait(60)
    run = started(strategy, faults=[Pause(rank, 30, 1.0)])  # else it may be over before it is disturbed
    with stopped(cluster, run, rank, nanny=nanny) as address:
        run.wait(60)
    (said,) = recoveries(run)
    assert said.startswith(f"rank {rank} replaced: stalled on {address} at step ")
    assert_array_equal(run.params, undisturbed.params)
    assert address not in calls.identity(cluster), "it was killed, and its nanny has started another"


def test_who_wakes_finds_that_others_go_on(watch: Watch, cluster: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can restart it here: it wakes as it was."""
    monkeypatch.setattr("scaleml.cluster.stalled_workers.kill_stopped", lambda name: False)
    monkeypatch.setattr(StalledWorkers, "_ask_for_restart", lambda self, address: None)
    undisturbed = started(AllReduce()).wait(60)
    run = started(AllReduce(), epochs=LONG)
    with stopped(cluster, run, 1) as address:
        until(lambda: bool(recoveries(run)) and run.state == "running")
        assert address not in run._driver.placement.addresses
        assert address in calls.identity(cluster)
    until(lambda: not endpoints(cluster, address))
    steps = len(run.history)
    until(lambda: len(run.history) > steps + 10)
    assert len(recoveries(run)) == 1
    run.stop()
    watch.nothing_left()
    assert_array_equal(started(AllReduce()).wait(60).params, undisturbed.params)
    assert scaleml.train(scaleml.MLP((4,)), X, Y, workers=[address], **SETTINGS).state == "finished"


def endpoints(client: Client, address: str) -> int:
    from scaleml.cluster import endpoint

    return client.run(lambda: len(endpoint._taken), workers=[address])[address]


def test_whose_scheduler_is_out_of_reach_is_replaced(watch: Watch, cluster: Client) -> None:
    """Dask's worker then closes itself, and its nanny: the embedded cluster starts both again."""
    undisturbed = started(AllReduce(), 4).wait(60)
    run = started(AllReduce(), 4, faults=[Pause(1, 30, 1.0)])
    until(lambda: len(run.history) > 3)
    cluster.run(drop_scheduler, workers=[run._driver.placement.addresses[1]])
    run.wait(60)
    (said,) = recoveries(run)
    assert said.startswith("rank 1 replaced: lost at step ")
    assert_array_equal(run.params, undisturbed.params)


def test_the_state_of_a_distant_process_is_told_by_its_nanny_and_its_neighbours(
    watch: Watch, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = process_state.own_name()
    monkeypatch.setattr(process_state, "own_name", lambda: "elsewhere" + here[8:])
    workers = calls.identity(cluster)
    first, second, *_ = workers
    assert process_states(cluster, [first, second], workers) == {first: "alive", second: "alive"}
    process = cluster.run(os.getpid, workers=[first])[first]
    os.kill(process, signal.SIGSTOP)
    until(lambda: process_state.is_stopped(process))  # the system takes a moment
    try:
        assert process_states(cluster, [first], workers) == {first: "stopped"}
        assert process_states(cluster, list(workers), workers)[first] == "stopped", "no neighbour is asked then"
        alone = {first: {**workers[first], "nanny": None}, second: workers[second]}
        assert process_states(cluster, [first], alone) == {first: "stopped"}, "by its neighbour"
        nobody = {first: {**workers[first], "nanny": None}}
        assert process_states(cluster, [first], nobody) == {first: "unknown"}
    finally:
        os.kill(process, signal.SIGCONT)


class Sleeping(Network):
    """Holds Python's lock for long, at the sixth gradient of a rank, as a compiler may."""

    calls = 0

    def loss_grad(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == 6:
            ctypes.PyDLL(None).sleep(3)
        return super().loss_grad(*arguments, **named)


@dataclass(frozen=True)
class LongStep(Model):
    dtype: str = "float64"

    @property
    def is_classifier(self) -> bool:
        return True

    def build(self, signature: Any) -> Network:
        net = LinearModel(dtype=self.dtype).build(signature)
        return Sleeping(net.blocks, net.loss, signature, self.dtype, net.l1, net.l2, init_factor=0.0)


def test_a_long_step_is_no_stall_though_nothing_is_heard(watch: Watch) -> None:
    run = scaleml.train(LongStep(), X, Y, strategy=AllReduce(), workers=2, epochs=2, optimizer=SGD(0.1), batch_size=24)
    assert run.state == "finished"
    assert not recoveries(run)
