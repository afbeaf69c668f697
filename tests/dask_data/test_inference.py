"""Predictions for Dask collections: lazy, right in chunks, dtype and values, whatever the blocks hold."""

from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from distributed import Client

from scaleml import MLP, LinearModel
from scaleml.api.trained_model import TrainedModel
from scaleml.models import Signature

RNG = np.random.default_rng(2)
X = RNG.standard_normal((500, 8))
CHUNKS = (200, 0, 300)
LABELS = {
    "binary": np.array(["no", "yes"]),
    "multiclass": np.array([3, 5, 9]),
    "objects": np.array(["ant", "bee", "cow"], dtype=object),
    "regression": None,
    "targets": None,
}


def model(kind: str) -> TrainedModel:
    classes = LABELS[kind]
    outputs = {"binary": 1, "regression": 1, "targets": 2}.get(kind, 3)
    task: Any = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    settings = MLP((4,), loss="squared_error") if classes is None else LinearModel()
    signature = Signature(8, outputs, task)
    network = settings.build(signature)
    return TrainedModel(network, signature, RNG.standard_normal(network.size).astype("f4"), classes)


STORAGE = {
    "dense": lambda: da.from_array(X, chunks=(CHUNKS, -1)),
    "columns in chunks": lambda: da.from_array(X, chunks=(CHUNKS, 3)),
    "float32": lambda: da.from_array(X.astype("f4"), chunks=(CHUNKS, -1)),
    "CSR": lambda: da.from_array(X, chunks=(CHUNKS, -1)).map_blocks(scipy.sparse.csr_matrix),
    "unknown": lambda: da.from_array(X, chunks=(CHUNKS, -1))[da.from_array(X[:, 0] > -99, chunks=(CHUNKS,))],
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("kind", LABELS)
def test_a_dask_array_gives_the_predictions_of_its_rows(kind: str, storage: str) -> None:
    trained, collection = model(kind), STORAGE[storage]()
    methods = ["predict", "decision_function", *(["predict_proba"] if LABELS[kind] is not None else [])]
    for method in methods:
        found = getattr(trained, method)(collection)
        plain = getattr(trained, method)(X)
        assert isinstance(found, da.Array)
        assert found.dtype == plain.dtype
        assert found.ndim == plain.ndim
        assert found.chunks[1:] == tuple((size,) for size in plain.shape[1:])
        if storage != "unknown":
            assert found.chunks[0] == CHUNKS
        computed = found.compute(scheduler="synchronous")
        assert computed.dtype == plain.dtype
        if plain.dtype.kind == "f":
            np.testing.assert_allclose(computed, plain, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(computed, plain)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "targets"])
def test_a_dataframe_gives_a_dask_array(kind: str) -> None:
    dd = pytest.importorskip("dask.dataframe", reason="Dask's dataframes need pyarrow")
    trained = model(kind)
    table = pd.DataFrame(X, columns=list("abcdefgh"))
    for method in ("predict", "decision_function"):
        found = getattr(trained, method)(dd.from_pandas(table, npartitions=3))
        plain = getattr(trained, method)(table)
        assert isinstance(found, da.Array)
        assert found.dtype == plain.dtype
        computed = found.compute(scheduler="synchronous")
        assert computed.shape == plain.shape
        if plain.dtype.kind == "f":
            np.testing.assert_allclose(computed, plain, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(computed, plain)
    with pytest.raises(TypeError, match="text in 'a'"):
        trained.predict(dd.from_pandas(table.astype({"a": str}), npartitions=2))


def test_nothing_is_computed_before_it_is_asked_for_and_the_model_is_one_task(client: Client) -> None:
    def fail(block: Any) -> Any:
        raise AssertionError("computed too early")

    trained = model("binary")
    trained.predict(da.from_array(X, chunks=(100, -1)).map_blocks(fail, dtype=float, meta=np.empty((0, 0))))
    found = trained.predict(da.from_array(X, chunks=(100, -1)))
    assert sum("scaleml-model" in str(key) for key in found.__dask_graph__()) == 1
    np.testing.assert_array_equal(client.compute(found).result(), trained.predict(X))


def test_a_lazy_prediction_is_that_of_the_model_as_it_was() -> None:
    trained, table = model("multiclass"), da.from_array(X, chunks=100)
    before, lazy = trained.decision_function(X).copy(), trained.decision_function(table)
    trained.params[:] = 0
    np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), before, rtol=1e-4, atol=1e-5)
    assert not trained.decision_function(table).compute(scheduler="synchronous").any()


def test_models_of_equal_parameters_keep_apart_when_computed_together() -> None:
    signature = Signature(8)
    params = RNG.standard_normal(MLP((4,)).build(signature).size).astype("f4")
    twins = [
        TrainedModel(MLP((4,), activation=activation).build(signature), signature, params, LABELS["binary"])
        for activation in ("relu", "tanh")
    ]
    table = da.from_array(X, chunks=100)
    found = dask.compute(*(twin.decision_function(table) for twin in twins), scheduler="synchronous")
    for values, twin in zip(found, twins, strict=True):
        np.testing.assert_allclose(values, twin.decision_function(X), rtol=1e-4, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.1


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_scores_are_computed_where_the_data_is(kind: str) -> None:
    trained = model(kind)
    y = trained.predict(X)
    if kind == "regression":
        y = y + RNG.standard_normal(500)
    else:
        y[:100] = y[100]
    weights = RNG.random(500)
    table = da.from_array(X, chunks=(CHUNKS, 3))
    column, mass = da.from_array(y, chunks=120), da.from_array(weights, chunks=(CHUNKS,))
    for given in ((table, column, mass), (table, y, weights), (X, column, mass)):
        with dask.config.set(scheduler="synchronous"):
            assert trained.score(*given) == pytest.approx(trained.score(X, y, weights), rel=1e-5)
            assert trained.loss(*given) == pytest.approx(trained.loss(X, y, weights), rel=1e-5)


def test_other_columns_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"X has shape \(500, 7\), but this model was trained on 8 features"):
        model("binary").predict(da.from_array(X[:, 1:], chunks=100))
    hinge = LinearModel("hinge").build(Signature(8))
    trained = TrainedModel(hinge, Signature(8), np.zeros(9, "f4"), LABELS["binary"])
    with pytest.raises(ValueError, match="probabilities"):
        trained.predict_proba(da.from_array(X, chunks=100))
