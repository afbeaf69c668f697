"""Training on rows of any shape, of arrays and of Dask collections, against the same rows as a table of pixels and counts."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

import scaleml
from models.shapes import Shapes, features_of, values_of
from scaleml import SGD, AllReduce, LocalSGD, ParameterServer, Serial
from scaleml.api.trained_model import TrainedModel
from scaleml.data.augment import RandomCrop, RandomFlip
from scaleml.data.row_seeds import drawn, row_seeds
from scaleml.data.split import hold_out
from scaleml.data.tensors import as_tensors

RNG = np.random.default_rng(6)
ROWS = 90
IMAGES = RNG.integers(0, 256, (ROWS, 3, 4, 4), dtype="uint8")
TOKENS = RNG.integers(0, 12, (ROWS, 7))
AGES = RNG.standard_normal(ROWS)
BOTH = {"image": IMAGES, "age": AGES}
LETTERS = np.array(["ant", "bee", "cow"])[IMAGES[:, 0, 0, 0] // 90]
MASKS = RNG.integers(0, 2, (ROWS, 2, 3))
KINDS: dict[str, Any] = {
    "images": IMAGES,
    "tokens": TOKENS,
    "numbers": AGES,
    "several": BOTH,
    "a tuple": (IMAGES, AGES),
}
CLASSIFIER = Shapes(dtype="float64")
REGRESSION = Shapes("squared_error", dtype="float64")
CHUNKS = (40, 1, 30, 19)


def train(threads: Client, model: Any, X: Any, y: Any, **settings: Any) -> Any:
    usual = {"epochs": 2, "batch_size": 32, "optimizer": SGD(0.1), "shards": 2, "workers": 2}
    return scaleml.train(model, X, y, client=threads, **{**usual, **settings})


def looks_at_rows(estimator: Any, X: Any, y: Any) -> float:
    assert X["image"].shape == (18, 3, 4, 4)
    assert X["image"].dtype == np.uint8
    return float((estimator.predict(X) == y).mean())


def picked(given: Any, rows: Any) -> Any:
    if isinstance(given, dict):
        return {name: each[rows] for name, each in given.items()}
    return tuple(each[rows] for each in given) if isinstance(given, tuple) else given[rows]


def lazy(given: Any, cut_inside: bool = False) -> Any:
    """Dask arrays in uneven chunks along the first axis, and perhaps along others."""
    if isinstance(given, dict):
        return {name: lazy(each, cut_inside) for name, each in given.items()}
    if isinstance(given, tuple):
        return tuple(lazy(each, cut_inside) for each in given)
    return da.from_array(given, chunks=(CHUNKS, *((2 if cut_inside else -1) for _ in given.shape[1:])))


@pytest.mark.parametrize("kind", ["images", "tokens", "numbers", "several"])
def test_rows_of_any_shape_train_as_their_table_does(threads: Client, kind: str) -> None:
    X = KINDS[kind]
    table = features_of(as_tensors(X, "X", "float64").take(slice(0, ROWS)), np.float64)
    held = (picked(X, slice(0, 20)), LETTERS[:20])
    run = train(threads, CLASSIFIER, X, LETTERS, validation=held)
    plain = train(threads, CLASSIFIER, table, LETTERS, validation=(table[:20], LETTERS[:20]))
    np.testing.assert_array_equal(run.params, plain.params)
    np.testing.assert_array_equal(run.history.evaluations["loss"], plain.history.evaluations["loss"])
    whole = train(threads, CLASSIFIER, X, LETTERS, workers=1)
    np.testing.assert_allclose(run.params, whole.params, rtol=1e-9, atol=1e-12)
    model, rows = run.model, plain.model
    for method in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(model, method)(X), getattr(rows, method)(table))
        assert getattr(model, method)(picked(X, slice(0, 0))).shape == getattr(rows, method)(table[:0]).shape
    assert model.score(X, LETTERS) == rows.score(table, LETTERS)
    weights = np.arange(ROWS)
    assert model.loss(X, LETTERS, weights) == pytest.approx(rows.loss(table, LETTERS, weights), rel=1e-12)


@pytest.mark.parametrize("kind", ["images", "several", "a tuple"])
def test_dask_collections_train_as_their_arrays_do_and_predict_lazily(threads: Client, kind: str) -> None:
    X = KINDS[kind]
    settings: dict[str, Any] = {
        "batch_size": ROWS,
        "epochs": 3,
        "shards": None,
    }  # all rows in each step: no matter in which order
    run = train(threads, CLASSIFIER, X, LETTERS, **settings, sample_weight=AGES**2)
    for y in (LETTERS, da.from_array(LETTERS, chunks=31)):
        there = train(threads, CLASSIFIER, lazy(X, cut_inside=True), y, **settings, sample_weight=AGES**2)
        np.testing.assert_allclose(there.params, run.params, rtol=1e-9, atol=1e-12)
        assert there.model.signature == run.model.signature
    found = run.model.predict_proba(lazy(X))
    assert found.chunks == (CHUNKS, (3,))
    np.testing.assert_allclose(found.compute(), run.model.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(run.model.predict(lazy(X, cut_inside=True)).compute(), run.model.predict(X))
    assert run.model.score(lazy(X), lazy(LETTERS)) == run.model.score(X, LETTERS)
    assert run.model.loss(lazy(X), LETTERS) == pytest.approx(run.model.loss(X, LETTERS), rel=1e-9)


@pytest.mark.parametrize(
    ("y", "width"), [(MASKS, 6), (AGES, 1), (AGES[:, None], 1), ({"a": AGES, "b": MASKS[:, 0]}, 4)]
)
def test_targets_of_any_shape(threads: Client, y: Any, width: int) -> None:
    run = train(threads, REGRESSION, TOKENS, y, validation=(TOKENS[:9], picked(y, slice(0, 9))), batch_size=ROWS)
    values = values_of(as_tensors(y, "y", "float64").take(slice(0, ROWS)))
    x, w = features_of(TOKENS, np.float64), np.zeros((12, values.shape[1]))
    for _ in range(2):
        w -= 0.1 * x.T @ (x @ w - values) / ROWS
    assert run.model.signature.n_outputs == values.shape[1] == width
    np.testing.assert_allclose(run.params.reshape(w.shape), w, rtol=1e-9, atol=1e-12)
    assert run.model.loss(TOKENS, y) == pytest.approx(
        0.5 * ((x @ run.model.params.reshape(12, -1) - values) ** 2).sum(1).mean()
    )
    there = train(threads, REGRESSION, lazy(TOKENS), lazy(y), batch_size=ROWS, shards=None)
    np.testing.assert_allclose(there.params, run.params, rtol=1e-9, atol=1e-12)


def test_integers_of_several_dimensions_are_no_labels(threads: Client) -> None:
    run = train(threads, CLASSIFIER, TOKENS, MASKS, validation=0.2)
    assert run.model.classes is None
    assert run.model.signature.target == np.dtype(("i8", (2, 3)))
    there = train(threads, CLASSIFIER, lazy(TOKENS), lazy(MASKS), validation=(lazy(TOKENS), lazy(MASKS)))
    assert there.model.signature == run.model.signature
    assert run.model.loss(lazy(TOKENS), lazy(MASKS)) == pytest.approx(run.model.loss(TOKENS, MASKS))


@pytest.mark.parametrize("strategy", [LocalSGD(2), ParameterServer("bsp"), ParameterServer("async")])
def test_other_strategies_take_records(threads: Client, strategy: Any) -> None:
    run = train(
        threads, CLASSIFIER, BOTH, LETTERS, strategy=strategy, epochs=4, validation=0.2, scoring="balanced_accuracy"
    )
    assert run.history.evaluations["loss"][-1] < run.history.evaluations["loss"][0]


def test_class_weights_and_a_scorer_that_looks_at_rows(threads: Client) -> None:
    weighted = Shapes(dtype="float64", class_weight={"cow": 3.0})
    run = train(threads, weighted, BOTH, LETTERS, validation=0.2, scoring=looks_at_rows)
    by_hand = train(
        threads, CLASSIFIER, BOTH, LETTERS, validation=0.2, sample_weight=np.where(LETTERS == "cow", 3.0, 1.0)
    )
    np.testing.assert_allclose(run.params, by_hand.params, rtol=1e-9)


def test_what_does_not_fit_is_refused_with_both_shapes(threads: Client) -> None:
    model = train(threads, CLASSIFIER, IMAGES, LETTERS).model
    for X in (IMAGES[:, :2], da.from_array(IMAGES[:, :2])):
        with pytest.raises(
            ValueError, match=r"rows of uint8 \(2, 4, 4\), but this model was trained on rows of uint8 \(3, 4, 4\)"
        ):
            model.predict(X)
        with pytest.raises(ValueError, match=r"uint8 \(2, 4, 4\).*uint8 \(3, 4, 4\)"):
            model.score(X, LETTERS)
        with pytest.raises(
            ValueError, match=r"the validation X has rows of uint8 \(2, 4, 4\), .*X has rows of uint8 \(3, 4, 4\)"
        ):
            train(threads, CLASSIFIER, IMAGES, LETTERS, validation=(X, LETTERS))
    with pytest.raises(ValueError, match="the validation y has labels, y has rows of int64"):
        train(threads, CLASSIFIER, lazy(TOKENS), lazy(MASKS), validation=(lazy(TOKENS), lazy(LETTERS)))
    spoilt = np.array(AGES)
    spoilt[50] = np.nan
    for given in ({**BOTH, "age": spoilt}, lazy({**BOTH, "age": spoilt})):
        with pytest.raises(ValueError, match=r"X\['age'\] is nan in row 50: must be finite"):
            train(threads, CLASSIFIER, given, LETTERS)
    with pytest.raises(ValueError, match=r"X has 90 rows but X\['age'\] has 80"):
        train(threads, CLASSIFIER, {"image": lazy(IMAGES), "age": da.from_array(AGES[:80], chunks=40)}, LETTERS)
    with pytest.raises(TypeError, match=r"X\['age'\] is a ndarray of this process beside Dask collections"):
        train(threads, CLASSIFIER, {"image": lazy(IMAGES), "age": AGES}, LETTERS)


def test_a_comparison_of_images_says_what_a_row_is(threads: Client) -> None:
    found = scaleml.compare(
        CLASSIFIER, IMAGES, LETTERS, [Serial(), AllReduce()], client=threads, epochs=2, repeats=1, all_cores=False
    )
    assert len(found.runs) >= 2
    assert "rows of uint8 (3, 4, 4)" in str(found.environment)


def test_augmented_rows_are_those_of_their_seed_row_and_epoch(threads: Client) -> None:
    augment = (RandomCrop(1), RandomFlip())
    model = Shapes(dtype="float64", augment=augment)
    held, settings = (IMAGES[:9], LETTERS[:9]), {"epochs": 3, "seed": 5, "batch_size": ROWS}
    run = train(threads, model, IMAGES, LETTERS, validation=held, shards=3, workers=1, **settings)
    order, codes = hold_out(ROWS, 0.0, 5)[0], np.unique(LETTERS, return_inverse=True)[1]
    w = np.zeros((48, 3))
    for epoch in range(3):
        seeds = row_seeds(5, epoch, np.arange(ROWS))
        x = IMAGES[order]
        for number, each in enumerate(augment):
            x = each(x, drawn(seeds, number))
        x = features_of(x, np.float64)
        odds = np.exp(x @ w)
        w -= 0.1 * x.T @ (odds / odds.sum(axis=1, keepdims=True) - np.eye(3)[codes[order]]) / ROWS
    np.testing.assert_allclose(run.params, w.ravel(), rtol=1e-9, atol=1e-12)
    plain = TrainedModel(run.model.network, run.model.signature, run.params, run.model.classes)
    assert run.history.evaluations["loss"][-1] == pytest.approx(
        plain.loss(*held), rel=1e-12
    )  # held-out rows as they are
    several = train(threads, model, IMAGES, LETTERS, shards=3, workers=2, **settings)
    np.testing.assert_allclose(several.params, run.params, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="images are"):
        train(threads, model, TOKENS, LETTERS)
