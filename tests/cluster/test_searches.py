"""Searches over an estimator that trains on a cluster: no job of theirs waits for ever, or starts a cluster of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import joblib
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from cluster.conftest import Problem
from cluster.harness import nothing_left
from scaleml import AllReduce
from scaleml.linear_model import SGDClassifier

cloudpickle.register_pickle_by_value(sys.modules["cluster.harness"])  # workers cannot import the tests' folder
pytestmark = pytest.mark.usefixtures("users_cluster_only")
GRID = {"alpha": [1e-4, 1e2]}


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    """The current client, as a user's is: clones of an estimator find it."""
    with Client(cluster) as client:
        yield client


def search(problem: Problem, jobs: int | None, **settings: Any) -> GridSearchCV:
    return GridSearchCV(SGDClassifier("log_loss", random_state=0, **settings), GRID, cv=2, n_jobs=jobs).fit(
        problem.X, problem.y
    )


@pytest.fixture(scope="module")
def expected(client: Client, problem: Problem) -> GridSearchCV:
    """The search without jobs, each fit on the cluster."""
    return search(problem, None, strategy=AllReduce())


@pytest.mark.parametrize("backend", ["threading", "dask"])
def test_jobs_share_the_cluster_whose_workers_have_one_thread(
    client: Client, problem: Problem, expected: GridSearchCV, backend: str
) -> None:
    with nothing_left(client), joblib.parallel_config(backend):
        found = search(problem, 2, strategy=AllReduce())
    assert found.best_params_ == expected.best_params_
    assert found.best_score_ > 0.9
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


def test_more_jobs_at_once_than_the_cluster_has_threads(client: Client, problem: Problem) -> None:
    estimator = SGDClassifier("log_loss", random_state=0, strategy=AllReduce(), max_iter=5, tol=None)
    with nothing_left(client), joblib.parallel_config("dask"):
        found = RandomizedSearchCV(
            estimator, {"alpha": np.logspace(-4, 0, 3)}, n_iter=3, cv=2, n_jobs=-1, random_state=0
        )
        found.fit(problem.X, problem.y)
    assert found.best_score_ > 0.9


def test_child_processes_train_by_themselves_and_start_no_cluster(client: Client, problem: Problem) -> None:
    before = dask_processes()
    assert search(problem, 2).best_score_ > 0.9
    with pytest.raises(
        ValueError, match=r"StartFailed: no Dask cluster is started inside a child .*parallel_config\('dask'"
    ):
        search(problem, 2, strategy=AllReduce())
    assert dask_processes() == before


def dask_processes() -> set[int]:
    """This process's descendants that are schedulers, nannies or workers."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    marks = ("dask", "spawn_main", "fork_server")
    return {child.pid for child in children if any(mark in word for word in child.cmdline() for mark in marks)}
