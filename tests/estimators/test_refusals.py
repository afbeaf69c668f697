"""What scikit-learn refuses is refused on every path, and the error names what the user passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import linear_model as sk
from sklearn.base import clone

import scaleml
from scaleml import AllReduce
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

ROWS = 120
X = np.random.default_rng(0).standard_normal((ROWS, 4))
CODES = np.digitize(X[:, 0], [-0.5, 0.5])
NUMBERS = X @ [1.0, 2, 3, 4]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CLASSIFIERS = {
    "rows one by one": SGDClassifier(random_state=0),
    "batches": SGDClassifier(batch_size=16, random_state=0),
    "batches, logistic": SGDClassifier("log_loss", batch_size=16, random_state=0),
    "batches, squares": SGDClassifier("squared_error", batch_size=16, random_state=0),
    "perceptron": MLPClassifier((3,), max_iter=3, random_state=0),
}
REGRESSORS = {
    "rows one by one": SGDRegressor(random_state=0),
    "batches": SGDRegressor(batch_size=16, random_state=0),
    "perceptron": MLPRegressor(hidden_layer_sizes=(3,), max_iter=3, random_state=0),
}
ALL = {f"{kind}, {name}": (model, y) for kind, y, table in (("classes", CODES, CLASSIFIERS), ("numbers", NUMBERS, REGRESSORS))
       for name, model in table.items()}  # fmt: skip


def changed(values: Any, value: Any, dtype: Any = None) -> Any:
    values = np.array(values, dtype)
    values[7] = value
    return values


UNKNOWN = {  # classes, labels of the second call
    "between": ([0, 2, 4], np.array([0, 2, 3])),
    "above": ([0, 2, 4], np.array([0, 2, 7])),
    "below": ([0, 2, 4], np.array([-1, 2, 4])),
    "a fraction": ([0, 1, 2], np.array([0, 1, 1.5])),
    "two classes, above": ([0, 2], np.array([0, 2, 7])),
    "two classes, below": ([0, 2], np.array([-7, 2, 0])),
    "text": (["a", "c", "e"], np.array(["a", "c", "d"])),
    "text, longer": (["a", "c", "e"], np.array(["a", "c", "each"])),
    "text, objects": (["a", "c", "e"], np.array(["a", "c", "z"], object)),
    "text for numbers": ([0, 1, 2], np.array(["0", "1", "2"])),
    "numbers for text": (["0", "1", "2"], np.array([0, 1, 2])),
    "missing text": (["a", "c", "e"], np.array(["a", "c", None], object)),
}


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_labels_outside_the_classes(model: str, unknown: str) -> None:
    classes, labels = UNKNOWN[unknown]
    clf = clone(CLASSIFIERS[model])
    clf.partial_fit(X, np.asarray(classes)[np.minimum(CODES, len(classes) - 1)], classes=classes)
    before = clf.predict(X)
    with pytest.raises(ValueError, match=r"(?i)classes|label|missing"):
        clf.partial_fit(X, labels[CODES])
    np.testing.assert_array_equal(clf.predict(X), before)
    with pytest.raises(ValueError, match=r"(?i)classes|label|missing"):
        clone(CLASSIFIERS[model]).partial_fit(X, labels[CODES], classes=classes)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_labels_of_the_classes_in_another_dtype(model: str) -> None:
    for classes, labels in (
        ([0, 1, 2], CODES.astype(float)),
        ([0.0, 1.0, 2.0], CODES),
        ([0, 1, 2], CODES.astype("u1")),
    ):
        clf = clone(CLASSIFIERS[model]).partial_fit(X, labels, classes=classes)
        assert clf.classes_.dtype == np.asarray(classes).dtype
    text = np.array(["ant", "bee", "cat"])[CODES]
    clf = clone(CLASSIFIERS[model]).partial_fit(X, text.astype(object), classes=["cat", "bee", "ant"])
    assert set(clf.predict(X)) <= {"ant", "bee", "cat"}


WEIGHTS: dict[str, tuple[Any, str]] = {
    "negative": (changed(np.ones(ROWS), -2.0), r"sample_weight.*-2\.0 at row 7"),
    "zero": (np.zeros(ROWS), "non-zero|0 everywhere"),
    "missing": (changed(np.ones(ROWS), np.nan), "sample_weight"),
    "infinite": (changed(np.ones(ROWS), np.inf), "sample_weight"),
    "too few": (np.ones(ROWS - 1), "sample_weight"),
    "a table": (np.ones((ROWS, 2)), "(?i)sample.weights"),
    "text": (np.full(ROWS, "heavy"), "heavy"),
    "negative, two classes": (changed(np.ones(ROWS), -1e-9), "sample_weight"),
}


@pytest.mark.parametrize("case", ALL)
def test_weights_that_are_none(case: str) -> None:
    model, y = ALL[case]
    for name, (weights, told) in WEIGHTS.items():
        if "negative" in name and "one by one" in case:
            continue  # scikit-learn's own code takes them
        y = CODES > 0 if name == "negative, two classes" and "classes" in case else y
        with pytest.raises(ValueError, match=told):
            clone(model).fit(X, y, sample_weight=weights)
        first = {"classes": np.unique(y)} if "classes" in case else {}
        with pytest.raises(ValueError, match=told):
            clone(model).partial_fit(X, y, sample_weight=weights, **first)


@pytest.mark.parametrize("model", [name for name in CLASSIFIERS if name != "rows one by one"])
def test_weights_of_classes_that_are_none(model: str) -> None:
    for y in (CODES, CODES > 0):
        for weights in (dict.fromkeys(np.unique(y), 0), {**dict.fromkeys(np.unique(y), 1), y[0]: -1}, {y[0]: np.nan}):
            with pytest.raises(ValueError, match="class_weight"):
                clone(CLASSIFIERS[model]).set_params(class_weight=weights).fit(X, y)
    weights = {True: 0, False: 1}
    with pytest.raises(ValueError, match="class_weight"):  # the rows of the other class weigh nothing already
        clone(CLASSIFIERS[model]).set_params(class_weight=weights).fit(X, CODES > 0, sample_weight=(CODES > 0) * 1.0)


@pytest.mark.parametrize("case", [case for case in ALL if "one by one" not in case])
def test_rows_held_out_that_weigh_nothing(case: str) -> None:
    model, y = ALL[case]
    weights = (np.arange(ROWS) == 5) * 1.0  # on one side only
    with pytest.raises(ValueError, match="non-zero"):
        clone(model).set_params(early_stopping=True).fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("case", ALL)
def test_text_where_numbers_are_wanted(case: str) -> None:
    model, y = ALL[case]
    with pytest.raises(ValueError, match="X holds text: encode"):
        clone(model).fit(np.full((ROWS, 4), "cat"), y)
    if "numbers" in case:
        with pytest.raises(ValueError, match="y holds text: a regressor"):
            clone(model).fit(X, np.full(ROWS, "cat"))


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_labels_without_an_order(model: str) -> None:
    y = np.array(["a", "b", "c"], object)[CODES]
    with pytest.raises(TypeError, match=r"types int and str.*astype\(str\)"):
        clone(CLASSIFIERS[model]).fit(X, changed(y, 7, object))
    with pytest.raises(ValueError, match=r"missing at row 7 .*drop"):
        clone(CLASSIFIERS[model]).fit(X, changed(y, None, object))


@pytest.mark.parametrize("case", ALL)
def test_columns_that_are_all_empty(case: str) -> None:
    model, y = ALL[case]
    fitted = clone(model).fit(csr_matrix((ROWS, 4)), y)
    found = fitted.predict(csr_matrix((3, 4)))
    assert len(set(found.tolist())) == 1
    if "numbers" in case and "perceptron" not in case:
        theirs = sk.SGDRegressor(random_state=0).fit(csr_matrix((ROWS, 4)), y).predict(csr_matrix((1, 4)))
        assert found[0] == pytest.approx(theirs[0], abs=0.3)


def refused(call: Callable[[], Any], told: str, kinds: Any = ValueError) -> None:
    with pytest.raises(kinds, match=told):
        call()


@pytest.mark.usefixtures("cluster")
def test_the_same_on_workers() -> None:
    lazy = da.from_array(X, chunks=(50, -1))
    for y, wrap in (
        (CODES, lambda values: values),
        (CODES, lambda values: da.from_array(np.asarray(values), chunks=50)),
    ):
        data = X if wrap(y) is y else lazy
        clf = SGDClassifier(strategy=AllReduce(), workers=1, random_state=0)
        clf.partial_fit(data, wrap(y), classes=[0, 1, 2])
        refused(
            lambda data=data, wrap=wrap, clf=clf, y=y: clf.partial_fit(data, wrap(y + 1)),
            "none of the training classes",
        )
        for name, told in (("negative", "sample_weight"), ("zero", "everywhere|non-zero")):
            weights = wrap(WEIGHTS[name][0])
            refused(lambda data=data, wrap=wrap, clf=clf, y=y, w=weights: clf.fit(data, wrap(y), sample_weight=w), told)
        nothing = clone(clf).set_params(class_weight={0: 0, 1: 0, 2: 0})
        refused(lambda data=data, wrap=wrap, y=y, m=nothing: m.fit(data, wrap(y)), "class_weight")
    text = da.from_array(np.full(ROWS, "cat", object), chunks=50)
    refused(lambda: SGDRegressor().fit(lazy, text), "for labels train a classifier", TypeError)
    reg = SGDRegressor(random_state=0, workers=1).fit(lazy, da.from_array(NUMBERS.astype(object), chunks=50))
    assert reg.score(X, NUMBERS) > 0.9
    weights = (np.arange(ROWS) == 5) * 1.0
    model = scaleml.LinearModel(dtype="float64")
    for given in ((X, CODES, weights), (lazy, da.from_array(CODES, chunks=50), da.from_array(weights, chunks=50))):
        refused(
            lambda given=given: scaleml.train(
                model, *given[:2], sample_weight=given[2], validation=0.5, epochs=1, workers=1
            ),
            "0 for all .* rows",
        )
    run = scaleml.train(model, X, CODES, epochs=1, workers=1)
    blocks = [da.from_array(part, chunks=50) for part in (CODES, (np.arange(ROWS) < 40) * 1.0)]
    assert run.model.score(lazy, *blocks) == pytest.approx(run.model.score(X[:40], CODES[:40]))
    refused(lambda: run.model.score(X, CODES, np.zeros(ROWS)), "everywhere")
    refused(lambda: run.model.score(lazy, blocks[0], blocks[1] * 0), "everywhere")
    with dask.config.set(scheduler="sync"):
        refused(lambda: run.model.score(lazy, blocks[0] + 1), "none of")
