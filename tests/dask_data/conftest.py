"""Real workers, as a user's own cluster has them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from runtime import harness


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers of one thread, each a process."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def nothing_left(client: Client) -> Iterator[None]:
    """No piece of any run is left on the workers, and no task of ours on the scheduler."""
    yield
    left = client.run(files_of)
    assert not any(left.values()), left
    assert not any(client.run(readers_of).values())
    # Dask forgets a task a moment after its last future.
    assert harness.await_condition(lambda: not client.run_on_scheduler(tasks_of), 5.0), client.run_on_scheduler(
        tasks_of
    )


def tasks_of(dask_scheduler) -> list[str]:
    """Our tasks; runs on the scheduler."""
    return [str(key) for key in dask_scheduler.tasks if "scaleml" in str(key)]


def readers_of(dask_worker) -> list[str]:
    """The threads of a worker that read ahead; runs there."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("scaleml-prefetch")]


def files_of(dask_worker) -> list[str]:
    """The pieces in a worker's folder; runs there."""
    return [str(path) for path in Path(dask_worker.local_directory).glob("scaleml-data-*/*")]
