"""A run that stays on the cluster when the process that started it is killed, and is found again by its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from cluster.shell import Shell
from runtime import harness
from scaleml import RunFailed
from scaleml.api import detached_driver
from scaleml.checkpoint import Checkpoint
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


def drive_elsewhere(client: Client, name: str) -> int:
    """Kill the worker that drives a run; return its process."""
    address = client.get_metadata(["scaleml", "detached", name])["worker"]
    process: int = client.run(os.getpid, workers=[address])[address]
    os.kill(process, signal.SIGKILL)
    return process


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
    begun = drive_elsewhere(client, "tonight")
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


def test_it_goes_on_from_its_newest_checkpoint_to_the_same_bits(client: Client, tmp_path: Path) -> None:
    undisturbed = scaleml.train(scaleml.MLP((4,)), X, Y, client=client, epochs=30, **SETTINGS)
    scaleml.start(
        scaleml.MLP((4,)), X, Y, client=client, epochs=30, detach="kept", checkpoint=Checkpoint(tmp_path, every=1),
        faults=[Slow(1, 30)], **SETTINGS,
    )  # fmt: skip
    until(lambda: len(list(tmp_path.glob("*/manifest.json"))) > 1)
    with Client(client.scheduler.address, set_as_default=False) as other:
        run = scaleml.attach("kept", client=other)
        assert run.state == "running", "it was killed too late"
        drive_elsewhere(client, "kept")
        run.wait(60)
        (said,) = [text for _, text in run.history.marks if "resumed" in text]
        step = int(said.split()[3])
        assert said == f"resumed from step {step} of {tmp_path}"
        assert step > 0
        assert_array_equal(run.params, undisturbed.params)
        for column in ("step", "samples", "loss"):
            assert_array_equal(run.history.evaluations[column], undisturbed.history.evaluations[column])
        assert [text for _, text in scaleml.attach("kept", client=client).history.marks] == [said]
    client.unpublish_dataset("scaleml/kept")


def test_who_follows_it_loses_its_connection_and_finds_it_again(client: Client) -> None:
    """Dask forgets with the connection what its client held: also the task whose end is the run's record."""
    with Client(client.scheduler.address, set_as_default=False) as mine:
        run = scaleml.start(scaleml.MLP((4,)), X, Y, client=mine, epochs=10**6, detach="far", **SETTINGS)
        for _ in range(2):
            former = mine.scheduler_comm
            mine.loop.add_callback(former.comm.abort)
            until(lambda former=former: mine.scheduler_comm not in (None, former) and mine.status == "running")
            seen = len(run.history)
            until(lambda seen=seen: len(run.history) > seen)
            assert run.state == "running"
        run.stop()
        assert run.state == "stopped"
        assert np.isfinite(run.params).all()
    client.unpublish_dataset("scaleml/far")


def test_who_can_follow_it_no_more_is_told_so_and_waits_no_longer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = (Client(client.scheduler.address, set_as_default=False) for _ in range(2))
    with mine, other:
        run = scaleml.start(scaleml.MLP((4,)), X, Y, client=mine, epochs=10**6, detach="on", **SETTINGS)
        beside = scaleml.attach("on", client=other)
        mine.close()
        with pytest.raises(RunFailed, match=r"client is clos.*scaleml.attach\('on'\) with a client that is connected"):
            run.wait(30)
        with pytest.raises(RuntimeError, match="told to pause; the Dask client is clos"):
            run.pause()

        def unreadable(*_: object) -> None:
            raise KeyError("a column of another version")

        monkeypatch.setattr(detached_driver, "take", unreadable)
        with pytest.raises(
            RunFailed, match=r"no longer be followed here \(KeyError: .*version.*attach\('on'\) tries again"
        ):
            beside.wait(30)
        monkeypatch.undo()
        assert not beside._driver._thread.is_alive() or not beside._driver._thread.join(10)
    scaleml.attach("on", client=client).stop()  # it has gone on
    client.unpublish_dataset("scaleml/on")


@pytest.mark.chaos
@pytest.mark.parametrize("what", ["workers", "scheduler"])
def test_whose_cluster_goes_waits_no_longer(tmp_path: Path, what: str) -> None:
    settings: dict[str, Any] = {"scaleml.recovery-timeout": "1s", "distributed.comm.timeouts.connect": "1s"}
    with Shell(tmp_path) as shell, dask.config.set(settings):
        file, scheduler = shell.cluster({"ann": [], "bob": []})
        with Client(scheduler_file=str(file), set_as_default=False) as mine:
            mine.wait_for_workers(2, timeout=60)
            run = scaleml.start(scaleml.MLP((4,)), X, Y, client=mine, epochs=10**6, detach="on", **SETTINGS)
            until(lambda: len(run.history) > 0)
            for process in [scheduler] if what == "scheduler" else shell._started[1:]:
                os.killpg(process.pid, signal.SIGKILL)
            words = "the Dask client is" if what == "scheduler" else "no worker has taken it up within 1 s"
            with pytest.raises(RunFailed, match=words):
                run.wait(60)
            if what == "workers":
                with pytest.raises(TimeoutError, match=r"detached run 'on': no worker has taken it up within 1 s"):
                    scaleml.attach("on", client=mine)
                shell.worker(file, "cem")
                shell.worker(file, "dan")
                mine.wait_for_workers(2, timeout=60)
                again = scaleml.attach("on", client=mine)
                assert again.state in ("starting", "running")
                again.stop()
                assert again.state == "stopped"


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
