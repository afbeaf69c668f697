"""The contract of a flat model: a toy that is no network trains everywhere, and a network is all that it says it is."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import scaleml
from embedded import embedded
from family.strategies import STRATEGIES
from models.cases import CASES, batch, parameters
from models.toy import FlatToy, SureToy, Toy
from runtime import harness
from scaleml.api.trained_model import TrainedModel
from scaleml.models import MLP, FlatModel, LinearModel, Network, Signature
from scaleml.models.flat_model import (
    Layered,
    Named,
    Penalised,
    Probabilistic,
    Reusing,
    Scoring,
    Sparse,
    matrices_of,
    named_parts_of,
    parts_of,
    penalty_of,
)
from scaleml.optim import SGD
from scaleml.strategies import AllReduce, ParameterServer, Serial

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((300, 5)).astype("f4")
Y = np.where(X @ RANDOM.standard_normal(5) > 0, "yes", "no")
SETTINGS = {"optimizer": SGD(0.3), "epochs": 3, "batch_size": 32}
OPTIONAL = (Penalised, Layered, Named, Scoring, Probabilistic, Reusing, Sparse)


@pytest.fixture
def workers():
    return embedded(2)


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_a_network_is_a_flat_model_and_all_that_some_are(model, signature):
    network = model.build(signature)
    assert isinstance(network, FlatModel)
    assert all(isinstance(network, kind) for kind in OPTIONAL)


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_names_are_of_all_parameters_in_their_order(model, signature):
    network = model.build(signature)
    parts = [part for _, part in named_parts_of(network)]
    assert [part.stop for part in parts] == [*(part.start for part in parts[1:]), network.size]
    assert parts[0].start == 0
    weights = [part for name, part in named_parts_of(network) if name.endswith("weight")]
    assert [(part.start, part.stop - part.start) for part in weights] == [(a, m * n) for a, m, n in network.matrices]


def test_names():
    found = [name for name, _ in MLP((5, 4)).build(Signature(6)).named_parts]
    assert found == [f"{layer}.{what}" for layer in ("hidden.0", "hidden.1", "output") for what in ("weight", "bias")]
    assert [name for name, _ in LinearModel(fit_intercept=False).build(Signature(6)).named_parts] == ["weight"]


def test_the_toy_is_a_flat_model_and_nothing_else():
    toy = Toy().build(Signature(5))
    assert isinstance(toy, FlatModel)
    assert not isinstance(toy, Network)
    assert not any(isinstance(toy, kind) for kind in OPTIONAL)
    assert parts_of(toy) == (slice(0, 6),)
    assert matrices_of(toy) == ()
    assert named_parts_of(toy) == ()
    assert penalty_of(toy, np.ones(6)) == 0


@pytest.mark.parametrize(("model", "signature"), [*CASES, (Toy(), Signature(6))])
def test_the_contract(model, signature):
    flat, (x, y) = model.build(signature), batch(signature)
    w, whole, parts = parameters(flat), np.empty(flat.size, flat.dtype), np.empty(flat.size, flat.dtype)
    assert_array_equal(flat.init(3), flat.init(3))
    final = []
    flat.loss_grad(w, x, y, None, whole, final.append)
    assert final == [*reversed(parts_of(flat))]
    pieces = [flat.loss_grad(w, x[rows], y[rows], None, part) for rows, part in _halves(len(x), parts)]
    loss, weight = flat.loss_grad(w, x, y, None, whole)
    assert_allclose(sum(found[0] for found in pieces), loss, rtol=1e-5)
    assert sum(found[1] for found in pieces) == weight == len(x)
    nothing = flat.statistics(w, x[:0], y[:0])
    assert np.isnan(flat.summarise(nothing)).all()
    assert_allclose(sum((flat.statistics(w, x[r], y[r]) for r, _ in _halves(len(x), parts)), nothing),
                    flat.statistics(w, x, y), rtol=1e-6)  # fmt: skip
    assert_allclose(flat.summarise(flat.statistics(w, x, y))[0], loss / weight, rtol=1e-5)
    again = pickle.loads(pickle.dumps(flat))
    assert_array_equal(again.predict(w, x), flat.predict(w, x))


def _halves(n, out):
    return [(slice(0, n // 2), out), (slice(n // 2, n), out)]


def test_why_a_network_is_not_sparse():
    dense, sparse = Signature(4), Signature(4, sparse=True)
    assert "X is dense" in LinearModel().build(dense).why_dense()
    assert LinearModel().build(sparse).why_dense() == ""
    assert LinearModel(penalty="l1").build(sparse).why_dense() == "", "its gradient is sparse: only its updates are not"
    assert "hidden layers" in scaleml.MLP((3,)).build(sparse).why_dense()
    wide = LinearModel().build(Signature(4, 3, "multiclass", sparse=True))
    assert (wide.columns, wide.width) == (4, 3)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_the_toy_trains_under_every_strategy(strategy):
    result = harness.on_threads(Toy(), X, Y, strategy=strategy, validation=(X, Y), **SETTINGS)
    _has_learnt(result)


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer()], ids=repr)
def test_the_toy_trains_on_workers_and_predicts(workers, strategy):
    result = harness.on_workers(Toy(), X, Y, strategy=strategy, validation=(X, Y), **SETTINGS)
    _has_learnt(result)
    model = result.run.model
    assert model.score(X, Y) == np.mean(model.predict(X) == Y) > 0.85
    assert model.loss(X, Y) < 0.5


def test_the_toy_under_overlap_is_the_toy_without(workers):
    plain, overlapped = (
        harness.on_threads(Toy(), X, Y, strategy=AllReduce(overlap=overlap), **SETTINGS) for overlap in (False, True)
    )
    assert_array_equal(plain.params, overlapped.params)


def test_the_toy_in_a_comparison(workers):
    comparison = scaleml.compare(Toy(), X, Y, [Serial(), AllReduce()], workers=2, validation=0.2, **SETTINGS)
    assert {run.state for run in comparison.runs} == {"finished"}
    assert "reach" in str(comparison.verdict)


def test_the_toy_in_the_lab(workers):
    from lab.clicking import PATIENCE

    with scaleml.Lab(Toy(), X, Y, workers=2, strategies=[Serial(), AllReduce()], **SETTINGS) as lab:
        lab.run_button.click()
        comparison = lab.wait(PATIENCE)
        assert lab._controller.error == ""
    assert {run.state for run in comparison.runs} == {"finished"}
    assert "reach" in str(comparison.verdict)


def _has_learnt(result):
    assert result.state == "finished"
    losses = result.history.evaluations["loss"]
    assert losses[-1] < 0.85 * losses[0]


def trained(model):
    signature = Signature(5)
    w = np.arange(6, dtype="f4") - 2
    return TrainedModel(model.build(signature), signature, w, np.array(["no", "yes"]))


def test_a_trained_toy_says_what_it_cannot_do():
    model = trained(Toy())
    with pytest.raises(TypeError, match=r"FlatToy has no scores.*use predict"):
        model.decision_function(X)
    with pytest.raises(TypeError, match="FlatToy has no predict_proba"):
        model.predict_proba(da.from_array(X, chunks=(100, -1)))
    assert repr(model) == "<TrainedModel: 6 parameters, 5 features, 2 classes>"


@pytest.mark.parametrize("model", [Toy(), SureToy(), LinearModel()], ids=repr)
def test_trained_models_predict_the_same_lazily(model):
    model = trained(model)
    lazy, labels = da.from_array(X.astype("f8"), chunks=((0, 120, 180), 5)), da.from_array(Y, chunks=((0, 120, 180),))
    methods = ["predict"] if isinstance(model.network, FlatToy) and not isinstance(model.network, Scoring) else [
        "predict", "decision_function", "predict_proba",
    ]  # fmt: skip
    with dask.config.set(scheduler="synchronous"):
        for method in methods:
            found, plain = getattr(model, method)(lazy), getattr(model, method)(X)
            assert (found.dtype, found.ndim) == (plain.dtype, plain.ndim)
            (assert_array_equal if method == "predict" else assert_allclose)(found.compute(), plain)
        assert model.score(lazy, labels) == pytest.approx(model.score(X, Y))
