"""The runtime's fixtures: real worker processes, ranks on threads, dense and sparse data."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime import harness
from runtime.conftest import cluster, storage

__all__ = ["cluster", "storage", "train"]


@pytest.fixture(params=["threads", "workers"])
def train(request: pytest.FixtureRequest) -> Callable[..., harness.Result]:
    """Train on threads of this process, on Dask workers."""
    if request.param == "workers":
        request.getfixturevalue("cluster")
        return harness.on_workers
    return harness.on_threads
