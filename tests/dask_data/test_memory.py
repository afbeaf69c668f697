"""Workers with little memory: more data than fits trains from their disks, and what cannot fit is refused with figures."""

import re
from collections.abc import Iterator

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

import scaleml
from scaleml import MLP, SGD, LinearModel

LIMIT = 300_000_000


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers that may use 300 MB each; a third of that is taken by their imports."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def array(megabytes: int, chunk_megabytes: int = 20) -> tuple[da.Array, da.Array]:
    """Random rows of 200 float32 columns, made on the workers, and a y that they decide."""
    rows = megabytes * 1_000_000 // 800
    X = da.random.default_rng(0).standard_normal(
        (rows, 200), dtype="f4", chunks=(chunk_megabytes * 1_000_000 // 800, 200)
    )
    return X, X[:, 0] > 0


def peak(dask_worker) -> tuple[int, int]:
    """The process, and the most memory it ever had; runs on a worker."""
    import os
    from pathlib import Path

    status = Path("/proc/self/status").read_text()
    return os.getpid(), next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.slow
def test_400_mb_train_on_two_workers_of_300_mb(client: Client) -> None:
    before = client.run(peak)
    X, y = array(400)
    run = scaleml.train(
        LinearModel(), X, y, optimizer=SGD(0.5), epochs=2, batch_size=5000, validation=0.1, client=client
    )
    after = client.run(peak)
    assert run.state == "finished"
    assert run.history.evaluations["score"][-1] > 0.9
    assert {pid for pid, _ in after.values()} == {pid for pid, _ in before.values()}  # none was killed and replaced
    assert max(memory for _, memory in after.values()) < LIMIT


def test_numpy_data_larger_than_the_limit_streams(client: Client) -> None:
    X = np.random.default_rng(0).standard_normal((150_000, 500), dtype="f4")  # 150 MB a rank
    run = scaleml.train(LinearModel(), X, X[:, 0] > 0, epochs=1, batch_size=5000, client=client)
    assert run.state == "finished"
    assert max(memory for _, memory in client.run(peak).values()) < LIMIT


def test_a_partition_that_does_not_fit_is_refused(client: Client) -> None:
    with pytest.raises(RuntimeError, match=r"partition of X takes 280 MB.*limited to 300 MB.*takes \d+ MB.*X\.rechunk"):
        scaleml.start(LinearModel(), *array(400, 280), client=client)


def test_a_batch_that_does_not_fit_is_refused(client: Client) -> None:
    with pytest.raises(
        RuntimeError, match=r"limited to 300 MB.*needs \d+ MB more.*160 MB for its part of a batch of 400000"
    ):
        scaleml.start(LinearModel(), *array(400), batch_size=400_000, client=client)


def test_a_model_that_does_not_fit_is_refused(client: Client) -> None:
    with pytest.raises(RuntimeError, match=r"\d+ MB for 10100003 parameters.*smaller model") as caught:
        scaleml.start(MLP((50_000, 1)), *array(20), client=client)
    assert re.search(r"worker tcp://\S+ is limited", str(caught.value))


def test_nothing_is_left(client: Client) -> None:
    from dask_data.conftest import files_of

    assert not any(client.run(files_of).values())
