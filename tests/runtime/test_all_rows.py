"""Optimizers of all rows: over all-reduce the same decisions on every rank, the minimum of one process, and nothing else."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

import scaleml
from runtime import harness
from scaleml import AllReduce, Gossip, Hogwild, LinearModel, LocalSGD, ParameterServer, Serial
from scaleml.api.validation import check_all_rows
from scaleml.compression import TopK
from scaleml.models import Signature
from scaleml.optim import LBFGS
from scaleml.runtime.stop_rule import StopRule

ROWS, ALPHA = 120, 0.01
RNG = np.random.default_rng(3)
X = RNG.standard_normal((ROWS, 5))
Y = (X @ RNG.standard_normal(5) + 0.5 * RNG.standard_normal(ROWS) > 0).astype(int)
WEIGHTS = RNG.uniform(0, 2, ROWS)
MODEL = LinearModel(alpha=ALPHA, dtype="float64")


def minimum(weights=None):
    """Return the parameters by SciPy, of the model's whole objective in one process."""
    network = MODEL.build(Signature(5, dtype="float64"))

    def objective(w):
        g = np.empty(network.size)
        loss, weight = network.loss_grad(w, X, Y.astype(float), weights, g)
        network.objective_grad(w, g, 1 / weight)
        return loss / weight + network.penalty(w), g

    return minimize(objective, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-9}).x


def train(strategy, x=X, **settings):
    return harness.on_threads(
        MODEL,
        x,
        Y,
        strategy=strategy,
        optimizer=LBFGS(tol=1e-8),
        epochs=100,
        batch_size=ROWS,
        stop=StopRule(tol=None),
        **settings,
    )


@pytest.mark.parametrize("part_rows", [None, 1, 7, 50])
@pytest.mark.parametrize(
    ("strategy", "workers"),
    [(Serial(), 1), (AllReduce(), 2), (AllReduce(), 3), (AllReduce(overlap=True), 2), (AllReduce(topology="ring"), 3)],
    ids=repr,
)
def test_all_ranks_come_to_the_minimum_with_the_same_bits(strategy, workers, part_rows):
    result = train(strategy, workers=workers, part_rows=part_rows, sample_weight=WEIGHTS)
    assert_allclose(result.params, minimum(WEIGHTS), atol=1e-6)
    assert result.outcomes[0].epochs < 40
    for other in result.outcomes[1:]:
        assert_array_equal(other.params, result.params)
        assert_array_equal(other.losses, result.outcomes[0].losses)


def test_sparse_rows_and_more_shards_than_ranks():
    found = [train(AllReduce(), csr_matrix(X), shards=5, part_rows=part_rows).params for part_rows in (None, 33)]
    for params in found:
        assert_allclose(params, minimum(), atol=1e-6)


@pytest.mark.parametrize(
    "strategy", [LocalSGD(4), ParameterServer("bsp"), Hogwild(), Gossip(), AllReduce(compression=TopK(0.5))], ids=repr
)
def test_strategies_without_the_gradient_of_all_rows_are_refused(strategy):
    with pytest.raises(ValueError, match=r"use AllReduce\(\) without compression, or Serial\(\)"):
        check_all_rows(LBFGS(), strategy)


def test_train_takes_all_rows_whatever_the_batch_and_ends_by_itself(cluster):
    run = scaleml.train(MODEL, X, Y, optimizer=LBFGS(tol=1e-8), epochs=100, batch_size=16, workers=2)
    assert run.state == "finished"
    assert len(run.history.epochs["loss"]) < 40
    assert_allclose(run.params, minimum(), atol=1e-6)
