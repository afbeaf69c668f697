"""Gradient accumulation: so many rows at once, one update of the whole batch, the parameters of a batch at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix

import scaleml
from embedded import embedded
from runtime import harness
from runtime.test_parameter_groups import MODEL, RULE, X, Y, trained
from scaleml.compression import TopK
from scaleml.models import LinearModel
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial

BATCH, EPOCHS = 24, 3


@pytest.mark.parametrize(
    ("strategy", "workers"),
    [
        (Serial(), 1),
        (AllReduce(), 2),
        (AllReduce(overlap=True, topology="ring"), 3),
        (AllReduce(compression=TopK(0.5)), 2),
        (LocalSGD(2), 2),
        (ParameterServer("bsp", servers=2), 2),
    ],
    ids=repr,
)
def test_parts_of_a_batch_are_the_batch(strategy, workers):
    counts = [0] * workers

    def count(rank, step, queue):
        counts[rank] = step

    settings = {"batch_size": BATCH, "workers": workers, "sample_weight": np.linspace(0, 2, len(X))}
    found = trained(strategy, part_rows=workers * 4, hook=count, **settings)
    assert_allclose(found.params, trained(strategy, **settings).params, rtol=1e-8, atol=1e-12)
    parts = math.ceil(BATCH / (workers * 4))
    assert counts == [EPOCHS * len(X) // BATCH * parts] * workers  # beside the warm-up's


def test_parts_of_float32_lose_nothing():
    model = LinearModel(dtype="float32")
    found = [
        trained(Serial(), workers=1, model=model, optimizer=scaleml.SGD(0.1), part_rows=part) for part in (None, 1)
    ]
    assert_allclose(found[1].params, found[0].params, rtol=1e-6, atol=1e-7)


def test_of_sparse_rows_it_is_of_whole_vectors():
    model = LinearModel(dtype="float64")
    settings = {"model": model, "optimizer": scaleml.SGD(0.1), "part_rows": 8}
    sparse, dense = (trained(AllReduce(), x=x, **settings).params for x in (csr_matrix(X), X))
    assert_allclose(sparse, dense, rtol=1e-9)


def test_in_a_run():
    client = embedded(2)
    settings = {"optimizer": RULE, "batch_size": BATCH, "epochs": EPOCHS, "workers": 2, "client": client}
    found = scaleml.train(MODEL, X, Y, microbatch=5, **settings)
    assert_allclose(found.params, scaleml.train(MODEL, X, Y, **settings).params, rtol=1e-9)
    expected = harness.on_threads(MODEL, X, Y, strategy=AllReduce(), part_rows=10, **{
        name: value for name, value in settings.items() if name != "client"
    }).params  # fmt: skip
    assert_array_equal(found.params, expected)
    with pytest.raises(ValueError, match="microbatch=0: must be a positive integer"):
        scaleml.train(MODEL, X, Y, microbatch=0, **settings)
