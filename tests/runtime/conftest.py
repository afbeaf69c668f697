"""Fixtures of the runtime's tests: real worker processes, one BLAS thread each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from distributed import Client

from embedded import embedded
from runtime import harness

WORKERS = 5


@pytest.fixture(scope="module")
def cluster() -> Client:
    """The embedded cluster, as a run without a client makes it."""
    return embedded(WORKERS)


@pytest.fixture(params=["threads", "threads-tcp", "workers"])
def train(request: pytest.FixtureRequest) -> Callable[..., harness.Result]:
    """Train on threads with shared memory, on threads without, on Dask workers."""
    if request.param == "workers":
        request.getfixturevalue("cluster")
        return harness.on_workers
    return partial(harness.on_threads, shared_memory=request.param == "threads")


@pytest.fixture(params=["dense", "csr"])
def storage(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Turn an array into what a user may pass."""
    if request.param == "dense":
        return lambda x: x
    from scipy.sparse import csr_array

    return csr_array
