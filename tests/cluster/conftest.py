"""One small problem for all clusters, and what plain NumPy makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

import scaleml
from runtime import reference
from scaleml.cluster import embedded as clusters
from scaleml.cluster.embedded import close_embedded

EPOCHS, BATCH, RATE = 2, 32, 0.5
LOCAL: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}


@dataclass(frozen=True)
class Problem:
    """Two classes in float64, so that one wrong row shows; `expected` is the answer for a number of shards."""

    X: Any
    y: Any

    def settings(self, **changed: Any) -> dict[str, Any]:
        """The arguments of a run, over in a moment."""
        return {
            "model": scaleml.LinearModel(penalty=None, dtype="float64"),
            "X": self.X,
            "y": self.y,
            "strategy": scaleml.AllReduce(),
            "optimizer": scaleml.SGD(RATE),
            "epochs": EPOCHS,
            "batch_size": BATCH,
            **changed,
        }

    def endless(self, **changed: Any) -> dict[str, Any]:
        """The arguments of a run that goes on until it is told to stop."""
        return self.settings(epochs=10**9, **changed)

    def expected(self, shards: int) -> Any:
        """The parameters after the run of `settings`, by a NumPy loop that shares no code with the package."""
        problem = reference.Problem(self.X, self.y, (self.X.shape[1], 1), "binary", shards=shards)
        return reference.serial(problem, np.zeros(self.X.shape[1] + 1), reference.Sgd(RATE), EPOCHS, BATCH)

    def check(self, params: Any, shards: int) -> None:
        """Fail unless these are the parameters of a run over so many shards."""
        np.testing.assert_allclose(params, self.expected(shards), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="session")
def problem() -> Problem:
    rng = np.random.default_rng(11)
    X = rng.standard_normal((203, 6))
    return Problem(X, (X @ np.array([1.0, -2, 3, 0, 0.5, 0]) + 0.3 * rng.standard_normal(203) > 0).astype(int))


def poll(condition: Callable[[], Any], deadline: float = 30.0) -> Any:
    """Ask again and again until the answer is true, and return it; the last answer once the deadline has passed."""
    until, pause = time.monotonic() + deadline, Event()
    while not (answer := condition()) and time.monotonic() < until:
        pause.wait(0.01)
    return answer


@pytest.fixture(name="poll")
def poll_fixture() -> Callable[..., Any]:
    return poll


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes of one thread each."""
    with LocalCluster(n_workers=2, processes=True, **LOCAL) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def threads() -> Iterator[Client]:
    """Two workers that are threads of this process: what is patched here is patched for them."""
    with (
        LocalCluster(n_workers=2, processes=False, protocol="tcp", **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def users_cluster_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an embedded cluster is about to be started beside the user's."""

    def refuse(workers: int) -> Client:
        raise AssertionError(f"an embedded cluster of {workers} was about to be started beside the user's")

    monkeypatch.setattr(clusters, "_own_client", refuse)


@pytest.fixture(scope="module")
def embedded() -> Iterator[None]:
    """The embedded cluster, closed before and after this module."""
    close_embedded()
    yield
    close_embedded()
