"""Workers die while partitions are staged, or afterwards: what they had is staged again, and the bits are the same."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

import scaleml
from dask_data.conftest import files_of
from runtime import harness
from scaleml import SGD, AllReduce, LinearModel
from scaleml.api.launch import launch
from scaleml.api.settings import Settings
from scaleml.cluster.staging.training_data import TrainingData

X = np.random.default_rng(0).standard_normal((400, 5))
Y = X[:, 0] > 0
CHUNKS = (100, 100, 100, 100)
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 32}


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def collections() -> tuple[da.Array, da.Array]:
    return da.from_array(X, chunks=(CHUNKS, -1)), da.from_array(Y, chunks=(CHUNKS,))


def kill(dask_worker: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose_one(client: Client) -> None:
    """Kill a worker and wait until its nanny has replaced it."""
    before = set(client.scheduler_info()["workers"])
    with contextlib.suppress(Exception):  # it cannot answer any more
        client.run(kill, workers=[min(before)], on_error="ignore")
    assert harness.await_condition(
        lambda: len(now := set(client.scheduler_info()["workers"])) == 2 and now != before, seconds=30
    )


def test_pieces_that_went_with_a_worker_are_staged_again(client: Client) -> None:
    undisturbed = scaleml.train(LinearModel(), *collections(), client=client, workers=2, **SETTINGS).params
    data = TrainingData(LinearModel(), *collections(), None, None, 0, client)
    try:
        lose_one(client)
        settings = Settings(LinearModel(), AllReduce(), SGD(0.1), **SETTINGS)
        run = launch(settings, data, client, False, None).wait()
    finally:
        data.close()
    np.testing.assert_array_equal(run.params, undisturbed)
    assert not any(client.run(files_of).values())


def test_files_that_somebody_removed_are_staged_again(client: Client) -> None:
    data = TrainingData(LinearModel(), *collections(), LETTERS_WEIGHTS, None, 0, client)
    try:
        settings = Settings(LinearModel(), AllReduce(), SGD(0.1), **SETTINGS)
        undisturbed = launch(settings, data, client, False, None).wait().params
        client.run(remove_files)
        run = launch(settings, data, client, False, None).wait()
    finally:
        data.close()
    np.testing.assert_array_equal(run.params, undisturbed)


LETTERS_WEIGHTS = np.random.default_rng(1).random(400)  # from this process: sent again


def remove_files(dask_worker: Any) -> None:
    for path in Path(dask_worker.local_directory).glob("scaleml-data-*/*"):
        path.unlink()


def test_a_worker_that_dies_while_it_stages(client: Client, tmp_path: Path) -> None:
    undisturbed = scaleml.train(LinearModel(), *collections(), client=client, workers=2, **SETTINGS).params
    flag = str(tmp_path / "died")

    def dies_once(block: Any, block_info: Any = None) -> Any:
        if block_info[0]["chunk-location"][0] == 2 and not os.path.exists(flag):
            Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    table, column = collections()
    table = table.map_blocks(dies_once, dtype=float)
    data = TrainingData(LinearModel(), table, column, None, None, 0, client)
    try:
        assert os.path.exists(flag)
        client.wait_for_workers(2, timeout=30)
        run = launch(Settings(LinearModel(), AllReduce(), SGD(0.1), **SETTINGS), data, client, False, None).wait()
    finally:
        data.close()
    np.testing.assert_array_equal(run.params, undisturbed)


def test_a_client_that_closes_leaves_no_files() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        first = Client(cluster, set_as_default=False)
        data = TrainingData(LinearModel(), *collections(), None, None, 0, first)
        first.close()
        data.close()
        with Client(cluster, set_as_default=False) as second:
            second.run(dask.config.set, {"scaleml.client-timeout": "1s"})  # for so long they stay, should it come back
            assert harness.await_condition(lambda: not any(second.run(files_of).values()))
