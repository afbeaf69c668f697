"""A run that stays on the cluster when the process that started it is killed, and is found again by its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from cluster.shell import Shell
from runtime import harness
from scaleml.faults import Slow

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((600, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
SETTINGS: dict[str, Any] = {"batch_size": 24, "validation": 0.2, "seed": 3, "workers": 2}
STARTS = """
import os, signal, sys
import dask.array as da, numpy as np
from distributed import Client
import scaleml
class Own(scaleml.MLP):
    "Of this script: nobody can import it."
client = Client(scheduler_file=sys.argv[1])
client.wait_for_workers(2, timeout=60)
x, y = np.load(sys.argv[2]), np.load(sys.argv[3])
x, y = client.persist([da.from_array(x, chunks=(100, -1)), da.from_array(y, chunks=100)])
settings = {"batch_size": 24, "validation": 0.2, "seed": 3, "workers": 2}
run = scaleml.start(Own((4,)), x, y, epochs=10**6, client=client, detach="tonight", **settings)
run.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("detached")
    with Shell(folder) as shell:
        file, _ = shell.cluster({"ann": [], "bob": []})
        with Client(scheduler_file=str(file), set_as_default=False) as made:
            np.save(folder / "x.npy", X)
            np.save(folder / "y.npy", Y)
            (folder / "start.py").write_text(STARTS)
            words = [sys.executable, "start.py", str(file), "x.npy", "y.npy"]
            done = subprocess.run(words, cwd=folder, timeout=120, check=False, capture_output=True, text=True)
            assert done.returncode == -signal.SIGKILL, done.stderr
            yield made


def until(condition: Any) -> None:
    assert harness.await_condition(condition, 60)


def test_another_process_finds_it_tells_it_and_ends_it(client: Client) -> None:
    run = scaleml.attach(client=client)
    assert (run.name, run.state, run.workers) == ("tonight", "paused", 2)
    until(lambda: len(run.history) > 0)
    run.resume()
    assert run.state == "running"
    before = len(run.history.evaluations["loss"])
    run.update(learning_rate=0.05)
    assert run.plan.optimizer.learning_rate == 0.05
    assert run.history.marks[-1][1] == "learning_rate=0.05"
    run.inject(Slow(1, 1.5))
    until(lambda: len(run.history.evaluations["loss"]) > before + 2)
    with pytest.raises(ValueError, match="batch_size=0"):
        run.update(batch_size=0)
    with pytest.raises(TimeoutError, match="still running"):
        run.wait(0.1)


def test_it_outlives_the_worker_that_drives_it(client: Client) -> None:
    run = scaleml.attach("tonight", client=client)
    address = client.get_metadata(["scaleml", "detached", "tonight"])["worker"]
    begun = client.run(os.getpid, workers=[address])[address]
    os.kill(begun, signal.SIGKILL)
    until(lambda: run.state == "recovering")
    # On both workers' ranks, with the rows of a collection that only the scheduler still holds for the process that made it.
    until(lambda: run.state == "running" and len(run.history.evaluations["loss"]) > 2)
    assert begun not in client.run(os.getpid).values(), "the fault did not happen"
    run.stop()
    assert run.state == "stopped"
    assert run.model.score(X, Y) > 0.6
    again = scaleml.attach("tonight", client=client)
    assert again.state == "stopped"
    assert_array_equal(again.params, run.params)
    assert_array_equal(again.history.rows, run.history.rows)
    with pytest.raises(RuntimeError, match="can no longer be told to pause"):
        again.pause()
    client.unpublish_dataset("scaleml/tonight")
    with pytest.raises(ValueError, match="there is none: start one with detach="):
        scaleml.attach(client=client)


def test_its_bits_are_those_of_a_run_that_is_not(client: Client) -> None:
    there = scaleml.train(scaleml.MLP((4,)), X, Y, client=client, epochs=3, detach=True, **SETTINGS)
    assert there.name == "run-1"
    here = scaleml.train(scaleml.MLP((4,)), X, Y, client=client, epochs=3, **SETTINGS)
    assert_array_equal(there.params, here.params)
    assert there.history.evaluations["loss"].tolist() == here.history.evaluations["loss"].tolist()
    with pytest.raises(ValueError, match="has a run of that name"):
        scaleml.start(scaleml.MLP((4,)), X, Y, client=client, detach="run-1")
    with pytest.raises(ValueError, match="there is no detached run 'other' on this cluster; there are 'run-1'"):
        scaleml.attach("other", client=client)


def test_what_its_start_raises_is_raised_here(client: Client) -> None:
    with pytest.raises(ValueError, match="NaN"):
        scaleml.start(scaleml.MLP((4,)), X * np.nan, Y, client=client, detach="bad")
    assert "scaleml/bad" not in client.list_datasets()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"detach": "a name"}, "must be a name of up to 80 letters"),
        ({"detach": True, "callbacks": [scaleml.callbacks.Callback()]}, "outlives that"),
    ],
)
def test_what_cannot_be(client: Client, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scaleml.start(scaleml.MLP((4,)), X, Y, client=client, **settings)


def test_without_a_cluster_of_the_users_none_outlives_this_process() -> None:
    with pytest.raises(ValueError, match="needs a cluster that outlives this process"):
        scaleml.start(scaleml.MLP((4,)), X, Y, detach=True)
