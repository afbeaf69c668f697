"""Trainables: one estimator, brought to the workers once, trained under several strategies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scaleml
from scaleml import SGD, AllReduce, LinearModel, LocalSGD, ParameterServer, Serial
from scaleml.api.launch import launch
from scaleml.api.trainable import Given, Trainable, trainable
from scaleml.cluster.embedded import find_client
from scaleml.linear_model import SGDClassifier

X, Y = load_breast_cancer(return_X_y=True)
PIPELINE = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", penalty="l1", alpha=0.05, random_state=2))

pytestmark = pytest.mark.usefixtures("embedded")


def each(task: Trainable, wanted: list[dict[str, Any]]) -> Iterator[scaleml.Run]:
    """Run one after another on the same data, as a comparison does."""
    client, own = find_client(None, 2)
    data = task.data()
    try:
        for settings in wanted:
            yield launch(
                task.settings(evaluations_an_epoch=2, scoring="roc_auc", **settings), data, client, own, 2
            ).wait()
    finally:
        data.close()


def test_all_runs_have_the_estimators_own_steps_and_the_same_rows() -> None:
    strategies = [Serial(), AllReduce(), LocalSGD(2)]
    task = trainable(PIPELINE, Given(X, Y, None, 0.25, strategies=strategies, workers=2))
    runs = list(each(task, [{"strategy": strategy} for strategy in strategies]))
    alone = scaleml.train(PIPELINE, X, Y, validation=0.25, strategy=AllReduce(), workers=2)
    assert_array_equal(runs[1].params, alone.params)
    assert len({run.history.evaluations["loss"][0] for run in runs}) == 1
    for run in runs:
        assert run.plan.steps is not None
        assert run.last_estimator.score(X, Y) > 0.95
        assert (run.estimator[-1].coef_ == 0).any(), "an L1 penalty by the steps leaves zeros"


def test_one_run_that_needs_the_penalty_in_the_model_has_all_runs_use_that() -> None:
    for more in (
        {"strategies": [AllReduce(), ParameterServer()]},
        {"optimizers": [None, SGD(0.2)], "strategies": [AllReduce()]},
    ):
        task = trainable(PIPELINE, Given(X, Y, None, 0.25, workers=2, epochs=2, **more))
        assert task.model.l1_ratio == 1.0
    first, second = each(
        task, [{"strategy": AllReduce()}, {"strategy": AllReduce(), "optimizer": SGD(0.2), "epochs": 3}]
    )
    assert (first.plan.steps is None, first.estimator[-1].n_iter_) == (False, 2)
    assert (second.plan.steps is None, second.plan.optimizer, second.estimator[-1].n_iter_) == (True, SGD(0.2), 3)


def test_a_model_is_taken_as_it_is() -> None:
    task = trainable(LinearModel(), Given(X, Y, seed=4))
    settings = task.settings()
    assert (settings.strategy, settings.optimizer, settings.epochs, settings.batch_size) == (
        AllReduce(),
        SGD(0.1),
        5,
        256,
    )
    assert (settings.seed, settings.stop, settings.fitted) == (4, None, None)
    assert task.given.X is X


def test_what_was_brought_to_workers_goes_where_settings_are_refused() -> None:
    lazy = da.from_array(X, chunks=(200, -1)), da.from_array(Y, chunks=200)
    with pytest.raises(ValueError, match="batch_size"):
        scaleml.train(SGDClassifier(), *lazy, batch_size=0)
    task = trainable(SGDClassifier(), Given(*lazy, workers=2))
    file = Path(task.given.X.pieces.summaries[0].piece.path)
    assert file.exists()
    task.close()
    assert not file.exists()
