"""Checkpoints on real worker processes: a run whose process and cluster were killed goes on here, with the same bits."""

from __future__ import annotations

import contextlib
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal

import scaleml
from cluster.scripts import script
from embedded import embedded
from runtime import harness
from scaleml.checkpoint import Checkpoint, CheckpointError
from scaleml.compression import TopK
from scaleml.faults import Kill
from scaleml.neural_network import MLPClassifier
from scaleml.optim import Adam
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((600, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
ESTIMATOR = MLPClassifier((4,), early_stopping=True, n_iter_no_change=3, tol=0.01, max_iter=40, random_state=1)
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "residuals": (scaleml.MLP((4,)), {"strategy": AllReduce(compression=TopK(0.25)), "optimizer": Adam(0.01)}),
    "local": (scaleml.MLP((4,)), {"strategy": LocalSGD(3), "optimizer": Adam(0.01), "validation": 0.2}),
    "server": (scaleml.MLP((4,)), {"strategy": ParameterServer("bsp"), "optimizer": Adam(0.01)}),
    "estimator": (ESTIMATOR, {"strategy": AllReduce()}),
}
SETTINGS: dict[str, Any] = {"workers": 2, "batch_size": 24, "seed": 3, "epochs": 6}


@pytest.fixture(scope="module")
def cluster() -> Client:
    return embedded(4)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a process that was killed with its cluster has left checkpoints of all runs, each of which still had steps to take."""
    folder = tmp_path_factory.mktemp("killed")
    tests = Path(__file__).parents[1]
    code = f"""
    import sys
    sys.path.insert(0, {str(tests)!r})
    if __name__ == "__main__":
        from cluster.test_checkpoints import start_all
        runs = start_all({str(folder)!r})
        print("ready", flush=True)
        runs[0].wait()
    """
    with script(code, folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        family = psutil.Process(process.pid).children(recursive=True)
        for one in [psutil.Process(process.pid), *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
    return folder


def start_all(folder: str) -> list[scaleml.Run]:
    """Start all runs, which then wait in mid-run, and return when each has written a checkpoint."""
    runs = []
    for name, (model, settings) in RUNS.items():
        faults = [scaleml.faults.Pause(rank=0, step=60, seconds=600)]
        saved = Checkpoint(f"{folder}/{name}", every=1)
        runs.append(scaleml.start(model, X, Y, **{**SETTINGS, **settings}, checkpoint=saved, faults=faults))
    assert harness.await_condition(lambda: all([*Path(folder, name).glob("*/manifest.json")] for name in RUNS), 60)
    return runs


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_elsewhere_with_the_same_bits(name: str, left: Path, cluster: Client) -> None:
    model, settings = RUNS[name]
    undisturbed = scaleml.train(model, X, Y, **{**SETTINGS, **settings})
    given = {"model": model} if name == "estimator" else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "step-.*manifest.json is missing")  # it was killed while it wrote one
        run = scaleml.resume(left / name, X=X, y=Y, **given)
    assert run.history.marks[0][1].startswith("resumed from step ")
    assert 0 < run.history.changes[0].step < 60
    assert_array_equal(run.params, undisturbed.params)
    assert_array_equal(run.history.evaluations["loss"], undisturbed.history.evaluations["loss"])
    assert_array_equal(run.history.epochs["loss"], undisturbed.history.epochs["loss"])
    assert run.history["step"].max() == undisturbed.history["step"].max()
    assert run.label == undisturbed.label
    if name == "estimator":
        assert_array_equal(run.estimator.predict(X), undisturbed.estimator.predict(X))
    with pytest.raises(CheckpointError, match=r"the run is over, after .* epochs: pass epochs="):
        scaleml.resume(left / name, X=X, y=Y, **given)


def test_more_or_fewer_workers_and_a_torn_newest_one(tmp_path: Path, cluster: Client) -> None:
    run = scaleml.train(
        *(scaleml.MLP((4,), dtype="float64"), X, Y),
        **{**SETTINGS, "shards": 6, "epochs": 4},
        checkpoint=Checkpoint(tmp_path, every=1, keep=9),
    )
    newest = max(tmp_path.glob("step-*"))
    part = newest / "shared.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    for workers in (1, 3):
        with pytest.warns(UserWarning, match=rf"{newest.name}/shared.safetensors is torn.*: going on from step-"):
            other = scaleml.resume(tmp_path, X=X, y=Y, workers=workers, checkpoint=None)
        assert other.workers == workers
        assert_allclose(other.params, run.params, rtol=1e-9, atol=1e-12)


def test_where_all_ranks_are_lost_others_begin_from_the_newest_checkpoint(tmp_path: Path, cluster: Client) -> None:
    cluster.wait_for_workers(4, timeout=30)
    settings = {**SETTINGS, "strategy": AllReduce(), "epochs": 30}
    undisturbed = scaleml.train(scaleml.MLP((4,)), X, Y, **settings)
    run = scaleml.train(
        *(scaleml.MLP((4,)), X, Y),
        **settings,
        faults=[scaleml.faults.Pause(rank=0, step=300, seconds=0.3), *(Kill(rank, 301) for rank in range(2))],
        checkpoint=Checkpoint(tmp_path, every=1),
    )
    (said,) = [change.text for change in run.history.changes if change.kind == "recovery"]
    assert said.startswith("ranks 0, 1 replaced: lost at step ")
    assert "of its checkpoint, after" in said
    assert_array_equal(run.params, undisturbed.params)
    cluster.wait_for_workers(4, timeout=30)


def test_where_neighbours_are_lost_together_who_is_left_begins_from_the_newest_checkpoint(
    tmp_path: Path, cluster: Client
) -> None:
    """With rank 2 the server beside it, with rank 0 what there was of that."""
    settings = {**SETTINGS, "workers": 3, "shards": 3, "strategy": ParameterServer("bsp"), "epochs": 7}
    undisturbed = scaleml.train(scaleml.MLP((4,), dtype="float64"), X, Y, **settings)
    run = scaleml.train(
        *(scaleml.MLP((4,), dtype="float64"), X, Y),
        **settings,
        faults=[scaleml.faults.Pause(rank=1, step=100, seconds=0.3), Kill(0, 101), Kill(2, 101)],
        checkpoint=Checkpoint(tmp_path, every=1),
        on_worker_lost="shrink",
    )
    (said,) = [change.text for change in run.history.changes if change.kind == "recovery"]
    assert said.startswith("rank 3 replaced, ranks 0, 2 left out: lost at step ")
    assert "of its checkpoint, after" in said
    assert run.workers == 1
    assert_allclose(run.params, undisturbed.params, rtol=1e-9, atol=1e-12)
    cluster.wait_for_workers(4, timeout=30)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://run", r"cannot be used on worker .*: it does not see what the client has written there"),
        ("/proc/run", r"nothing can be written there"),
    ],
)
def test_a_folder_that_cannot_serve_is_told_before_the_start(url: str, said: str, cluster: Client) -> None:
    with pytest.raises(CheckpointError, match=said):
        scaleml.train(scaleml.MLP((4,)), X, Y, workers=2, checkpoint=url)
