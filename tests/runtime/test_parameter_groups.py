"""Parameter groups: by names, on whole vectors, on servers' slices, of sparse data; what fits nothing is refused at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix

import scaleml
from embedded import embedded
from models.toy import Toy
from runtime import harness
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, AdaGrad, AdamW, Averaged, Group
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((120, 6))
Y = (X @ RANDOM.standard_normal(6) > 0).astype(int)
GROUPS = [Group("hidden.0.*", learning_rate=0.005), Group(("hidden.1.weight", "output.*"), weight_decay=2.0)]
RULE = AdamW(0.05, weight_decay=0.5, groups=GROUPS, no_decay="*bias")


MODEL = MLP((5, 4), dtype="float64")


def trained(strategy, optimizer=RULE, workers=2, model=MODEL, x=X, **more):
    more = {"epochs": 3, "batch_size": 24, "shards": 4, **more}
    return harness.on_threads(model, x, Y, strategy=strategy, optimizer=optimizer, workers=workers, **more)


@pytest.fixture(scope="module")
def whole():
    """The same run in one process, whose optimizer is held against PyTorch's in `test_torch_optim.py`."""
    return trained(Serial(), workers=1).params


def test_groups_matter(whole):
    assert np.abs(whole - trained(Serial(), AdamW(0.05, weight_decay=0.5), workers=1).params).max() > 0.01


@pytest.mark.parametrize(
    ("strategy", "workers"),
    [
        (AllReduce(), 2),
        (AllReduce(overlap=True), 2),
        (ParameterServer("bsp", servers=2), 2),
        (ParameterServer("bsp", servers=3), 3),
        (ParameterServer(servers=2), 1),
        (LocalSGD(4), 1),
        (Hogwild(), 1),
        (Gossip(), 1),
    ],
    ids=repr,
)
def test_every_way_of_updating_knows_them(strategy, workers, whole):
    assert_allclose(trained(strategy, workers=workers).params, whole, rtol=1e-9, atol=1e-12)


def test_servers_without_shared_memory(whole):
    found = trained(ParameterServer(servers=2), workers=1, shared_memory=False).params
    assert_allclose(found, whole, rtol=1e-9, atol=1e-12)


def test_a_learning_rate_of_0_freezes():
    frozen = [Group("hidden.*", learning_rate=0)]
    found = trained(ParameterServer("bsp", servers=2), Averaged(SGD(0.1, momentum=0.9, groups=frozen)))
    start = trained(Serial(), SGD(1e-300), workers=1, epochs=1).params
    hidden = 6 * 5 + 5 + 5 * 4 + 4
    assert_array_equal(found.params[:hidden], start[:hidden])
    assert np.abs(found.params[hidden:] - start[hidden:]).min() > 0


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, weight_decay=0.2),
        AdaGrad(0.1, weight_decay=0.2),
        SGD(0.1, groups=[Group("bias", learning_rate=0.01)]),
        SGD(0.1, weight_decay=0.2, no_decay="bias"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp"), Hogwild()], ids=repr)
def test_of_sparse_rows_all_coefficients_are_updated(strategy, optimizer):
    sparse = np.where(RANDOM.random(X.shape) < 0.3, X, 0)
    workers = 1 if strategy.shares_memory else 2
    model = LinearModel(dtype="float64")
    found = [trained(strategy, optimizer, workers, model, x, nonzeros=2.0).params for x in (csr_matrix(sparse), sparse)]
    assert_allclose(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "optimizer", "words"),
    [
        (MLP((5,)), AdamW(no_decay=("*bias", "*norm*")), "'.norm.', but no parameter has such a name.*'hidden.0.weight', "),
        (MLP((5,)), SGD(groups=[Group("hiden.0.weight", learning_rate=1)]), "Did you mean 'hidden.0.weight'"),
        (MLP((1,) * 9), SGD(groups=[Group("x", learning_rate=1)]), "and 8 more"),
        (Toy(), AdamW(no_decay="*bias"), "this model's parameters have no names"),
    ],
)  # fmt: skip
def test_a_pattern_that_fits_nothing(model, optimizer, words):
    with pytest.raises(ValueError, match=words):
        scaleml.train(model, X, Y, optimizer=optimizer, client=embedded(2), workers=2)


def test_an_outer_optimizer_has_no_groups():
    with pytest.raises(ValueError, match="parameter groups are the inner optimizer's"):
        LocalSGD(4, outer=RULE)


def test_what_has_one_axis():
    named = [AdamW(0.05, weight_decay=2.0, no_decay=names) for names in ("1d", "*bias", ())]
    found = [trained(Serial(), rule, workers=1).params for rule in named]
    assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.01
