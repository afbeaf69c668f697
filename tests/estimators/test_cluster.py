"""Estimators on a cluster: the same contract, whatever the strategy."""

import contextlib
import pickle

import numpy as np
import pytest
from distributed import Client
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from scaleml import SGD, AllReduce, LocalSGD, ParameterServer, RunFailed, Serial
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.usefixtures("cluster")
STRATEGIES = [Serial(), AllReduce(), LocalSGD(4), ParameterServer()]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_strategy_trains_every_estimator_to_the_same_score(strategy, classes, numbers):
    for kind, (X, y), settings in [
        (SGDClassifier, classes, {"loss": "log_loss"}),
        (SGDRegressor, numbers, {"eta0": 0.1}),
        (
            MLPClassifier,
            classes,
            {"learning_rate_init": 0.01, "max_iter": 40, "n_iter_no_change": 40, "batch_size": 64},
        ),
        (MLPRegressor, numbers, {"learning_rate_init": 0.01, "max_iter": 40, "n_iter_no_change": 40, "batch_size": 64}),
    ]:
        here = kind(random_state=0, **settings)
        there = clone(here).set_params(strategy=strategy, workers=2)
        with pytest.warns() if "max_iter" in settings else contextlib.nullcontext():
            here.fit(X, y)
            there.fit(X, y)
        # Gradients at parameters that others have moved on from train less well in the same number of epochs.
        assert there.score(X, y) > here.score(X, y) - (0.03 if strategy.synchronous else 0.15)
        assert pickle.loads(pickle.dumps(there)).score(X, y) == there.score(X, y)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_tol_ends_a_run_early_and_all_ranks_agree(strategy, classes):
    X, y = classes
    clf = SGDClassifier(loss="log_loss", strategy=strategy, workers=2, random_state=0, max_iter=300, tol=1e-2).fit(X, y)
    assert 5 < clf.n_iter_ < 100
    assert clf.t_ == 1 + clf.n_iter_ * len(y)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_early_stopping_gives_the_best_parameters(strategy, classes):
    X, y = classes
    settings = {
        "early_stopping": True,
        "learning_rate_init": 0.01,
        "tol": 0.01,
        "n_iter_no_change": 3,
        "batch_size": 64,
    }
    clf = MLPClassifier((20,), strategy=strategy, workers=2, random_state=0, **settings).fit(X, y)
    assert clf.n_iter_ < 200
    assert len(clf.validation_scores_) == len(clf.loss_curve_) == clf.n_iter_
    assert clf.best_validation_score_ == max(clf.validation_scores_) > 0.8


def test_all_reduce_takes_the_steps_of_one_process(classes):
    X, y = classes
    settings = {"max_iter": 20, "tol": None, "random_state": 0, "learning_rate": "constant", "eta0": 0.05}
    one = SGDClassifier("log_loss", strategy=Serial(), **settings).fit(X, y)
    two = SGDClassifier("log_loss", strategy=AllReduce(), workers=2, **settings).fit(X, y)
    assert (one.predict(X) == two.predict(X)).mean() > 0.9  # the shards of two ranks mix the rows in another order
    assert one.n_iter_ == two.n_iter_ == 20


@pytest.mark.parametrize("average", [False, True, 500])
def test_averages_over_ranks_are_averages(average, classes):
    X, y = classes
    settings = {"max_iter": 20, "tol": None, "random_state": 0, "average": average}
    for strategy in (AllReduce(), LocalSGD(4), ParameterServer(servers=2)):
        assert SGDClassifier("log_loss", strategy=strategy, workers=2, **settings).fit(X, y).score(X, y) > 0.68


def test_partial_fit_and_warm_start_go_on(classes):
    X, y = classes
    clf = SGDClassifier("log_loss", strategy=AllReduce(), workers=2, random_state=0)
    for _ in range(3):
        clf.partial_fit(X, y, classes=[0, 1, 2])
    assert clf.t_ == 1 + 3 * len(y)
    assert clf.score(X, y) > 0.68
    mlp = MLPClassifier((10,), strategy=AllReduce(), workers=2, learning_rate_init=0.01, batch_size=64, random_state=0)
    losses = [mlp.partial_fit(X, y, classes=[0, 1, 2]).loss_ for _ in range(5)]
    assert losses[-1] < losses[0]
    assert len(mlp.loss_curve_) == 5


def test_sparse_data_and_sample_weights_travel(classes):
    X, y = classes
    wide = np.zeros((len(y), 100))
    wide[:, 20:30] = X
    weights = np.where(y == 2, 0.0, 1.0)
    clf = SGDClassifier("log_loss", strategy=AllReduce(), workers=2, random_state=0)
    clf.fit(csr_matrix(wide), y, sample_weight=weights)
    assert clf.coef_.shape == (3, 100)
    assert not clf.coef_[:, :20].any()
    assert (clf.predict(wide)[y != 2] == y[y != 2]).mean() > 0.8
    assert (clf.predict(wide) == 2).mean() < 0.02


def test_a_client_is_used_and_neither_cloned_nor_pickled(cluster: Client, classes):
    X, y = classes
    clf = SGDClassifier(strategy=AllReduce(), random_state=0)
    clf.client = cluster
    assert "client" not in clf.get_params()
    assert clf.fit(X, y).client is cluster
    assert clone(clf).client is None
    copy = pickle.loads(pickle.dumps(clf))
    assert copy.client is None
    assert (copy.predict(X) == clf.predict(X)).all()
    with pytest.raises(TypeError, match=r"must be a distributed.Client"):
        clf.client = "tcp://127.0.0.1:1"


def test_a_grid_search_in_child_processes_trains_there(classes):
    X, y = classes
    search = GridSearchCV(SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-2]}, n_jobs=2, cv=2).fit(X, y)
    assert search.best_score_ > 0.65


def test_what_diverges_is_an_error_with_a_remedy(numbers):
    X, y = numbers
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="learning rate") as caught:
        SGDRegressor(optimizer=SGD(1e9), random_state=0).fit(X, y)
    assert "rank" not in str(caught.value)
    assert "kept" not in str(caught.value), "a failed fit leaves nothing"
    with pytest.raises(RunFailed, match=r"rank \d.*kept.*learning rate"):
        SGDRegressor(optimizer=SGD(1e9), strategy=AllReduce(), workers=2, random_state=0).fit(X, y)


def test_a_cluster_shuffles():
    with pytest.raises(ValueError, match="shuffle=False"):
        SGDClassifier(strategy=AllReduce(), shuffle=False).fit([[0.0], [1.0]], [0, 1])
