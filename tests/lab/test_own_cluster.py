"""A lab on a cluster of the user's: its workers die only where the user allowed it, and may be chosen by address."""

from __future__ import annotations

import os
import re

import pytest
from distributed import Client, LocalCluster

import leaks
from lab.clicking import LONG, begun, finished, holds, settled, words
from scaleml.strategies import AllReduce, LocalSGD


@pytest.fixture(scope="module")
def client():
    """Return the client of two worker processes that scaleml did not start."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def pids(client):
    return set(client.run(os.getpid).values())


def press_kill(lab):
    holds(lambda: not lab._steering.kill.disabled)
    lab._steering.rank.value = 1
    lab._steering.kill.click()


def test_without_permission_nobody_dies_and_the_remedy_is_named(lab, client):
    lab = lab(client=client, epochs=LONG)
    before = pids(client)
    run = begun(lab)
    press_kill(lab)
    holds(lambda: "only workers that scaleml started may be killed" in words(lab))
    assert "Lab(..., allow_kill=True)" in words(lab)
    seen = len(run.history)
    holds(lambda: len(run.history) > seen + 20)
    assert run.state == "running"
    assert pids(client) == before


def test_with_permission_the_process_dies_and_the_cluster_is_usable_after(lab, client):
    lab = lab(client=client, epochs=LONG, allow_kill=True)
    before = pids(client)
    run = begun(lab)
    press_kill(lab)
    holds(lambda: any(text.startswith("rank 1 replaced") for _, text in run.history.marks) and run.state == "running")
    assert len(before - pids(client)) == 1
    lab.stop_button.click()
    settled(lab)
    lab._setup.epochs.value = 2
    assert finished(lab).runs[-1].state == "finished"
    assert client.status == "running"


def test_workers_are_chosen_by_address(lab, client):
    addresses = sorted(client.scheduler_info()["workers"], reverse=True)
    lab = lab(client=client, workers=addresses[:1], strategies=[AllReduce()])
    assert [run.workers for run in finished(lab).runs] == [1]
    lab._setup.workers.value = ", ".join(addresses)
    run = finished(lab).runs[-1]
    assert run.workers == 2
    assert list(run._driver.placement.addresses[:2]) == addresses
    lab._setup.workers.value = " "
    with pytest.raises(ValueError, match="at least one worker"):
        lab.start()


@pytest.mark.parametrize("closed", ["client", "cluster"])
def test_what_closes_in_mid_run_is_said_in_words(lab, closed):
    before = leaks.look(sockets=False).threads
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        client = Client(cluster, set_as_default=False)
        lab = lab(client=client, epochs=LONG, strategies=[AllReduce(), LocalSGD(4)])
        run = begun(lab)
        (client if closed == "client" else cluster).close()
        settled(lab)
        assert run.state == "failed"
        # A cluster closes its workers one by one: the first may be missed before the others are.
        said = ("the Dask client is", "the cluster was closed", "the Dask worker tcp://")
        assert any(words_of in run.error for words_of in said), run.error
        assert run.error in words(lab)
        assert not re.search(r"AssertionError|RPCClosed|Traceback", words(lab))
        lab.run_button.click()
        holds(lambda: not lab.running and "make a new distributed.Client" in words(lab))
        lab.close()
        client.close()
    left = leaks.settle(lambda: leaks.Residue(leaks.look(sockets=False).threads - before))
    assert not [thread for thread in left.threads if "scaleml" in str(thread)]
