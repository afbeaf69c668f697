"""Workers that cannot read the client's file get the same data through Dask."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle
import numpy as np
import pytest
import scipy.sparse
from distributed import Client

import leaks
import scaleml
from cluster.conftest import Problem, poll
from scaleml import AllReduce, ParameterServer
from scaleml.cluster.embedded import find_client
from scaleml.cluster.staging import placed_data as placing

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder


# Workers that cannot read the client's file.


def nobody(files: list[Any]) -> list[bool]:
    return [False for _ in files]


def only_the_first(files: list[Any], dask_worker: Any) -> list[bool]:
    return [str(dask_worker.name) == "0" for _ in files]


def held_by_dask(dask_worker: Any) -> list[str]:
    return [str(key) for key in dask_worker.data]


LARGE = np.random.default_rng(5).standard_normal((60_000, 60))
KINDS = {
    "large": (LARGE, LARGE @ np.linspace(-1, 1, 60), None),
    "CSR, weights, two targets": (
        scipy.sparse.random(500, 40, 0.2, format="csr", random_state=1),
        np.random.default_rng(6).standard_normal((500, 2)),
        np.random.default_rng(7).random(500),
    ),
}


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sees", [nobody, only_the_first])
def test_remote_workers_get_the_same_data_through_dask(monkeypatch: pytest.MonkeyPatch, kind: str, sees: Any) -> None:
    X, y, weights = KINDS[kind]
    client, _ = find_client(None, 2)
    # A warning of a large graph would be an error here, and so end the run.
    arguments: dict[str, Any] = {
        "model": scaleml.LinearModel("squared_error"),
        "X": X,
        "y": y,
        "sample_weight": weights,
        "epochs": 2,
        "batch_size": 128,
        "optimizer": scaleml.SGD(0.01),
        "workers": 2,
        "shards": 5,
        "validation": 0.1,
    }
    near = scaleml.train(**arguments)
    monkeypatch.setattr(placing, "readable", sees)
    scattered: list[str] = []
    real = Client.scatter

    def scatter(self: Client, data: Any, **settings: Any) -> Any:
        scattered.extend(settings["workers"])
        return real(self, data, **settings)

    monkeypatch.setattr(Client, "scatter", scatter)
    with leaks.guard(sockets=False):
        far = scaleml.train(**arguments)
    assert len(set(scattered)) == (2 if sees is nobody else 1)
    assert far.params.tobytes() == near.params.tobytes()
    assert far.history.evaluations["loss"].tolist() == near.history.evaluations["loss"].tolist()
    assert poll(lambda: not any(client.run(held_by_dask).values()), 10), client.run(held_by_dask)


@pytest.mark.usefixtures("embedded")
def test_servers_take_part_when_the_data_comes_through_dask(monkeypatch: pytest.MonkeyPatch, problem: Problem) -> None:
    monkeypatch.setattr(placing, "readable", nobody)
    run = scaleml.train(**problem.settings(workers=2, strategy=ParameterServer("async"), epochs=5))
    assert run.model.score(problem.X, problem.y) > 0.85
    problem.check(scaleml.train(**problem.settings(workers=2, strategy=AllReduce())).params, shards=2)
