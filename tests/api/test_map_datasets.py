"""Training on map-style datasets: what their arrays would give, bit for bit, with items read ahead on ranks; and errors that name items."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from distributed import Client

import scaleml
from models.shapes import Shapes
from scaleml import SGD, AllReduce, LocalSGD, Serial
from scaleml.cluster.errors import RunFailed
from scaleml.data.augment import RandomFlip

RNG = np.random.default_rng(9)
ROWS = 300
IMAGES = RNG.integers(0, 256, (ROWS, 3, 4, 4), dtype="uint8")
AGES = RNG.standard_normal(ROWS)
LETTERS = np.array(["ant", "bee", "cow"])[IMAGES[:, 0, 0, 0] // 90]
MODEL = Shapes(dtype="float64")


class Items:
    """Items as PyTorch's datasets have them."""

    def __init__(self, x: Any, y: Any, bad: int = -1) -> None:
        self.x, self.y, self.bad, self.reads = x, y, bad, 0

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        if index == self.bad:
            raise FileNotFoundError("no such image")
        x = {name: each[index] for name, each in self.x.items()} if isinstance(self.x, dict) else self.x[index]
        return x, self.y[index]


class Together(Items):
    """Items that come several at a time, as PyTorch's loaders ask for them."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices]


def train(threads: Client, model: Any, X: Any, y: Any = None, **settings: Any) -> Any:
    usual = {"epochs": 2, "batch_size": 32, "optimizer": SGD(0.1), "shards": 2, "workers": 2, "validation": 0.2}
    return scaleml.train(model, X, y, client=threads, **{**usual, **settings})


@pytest.mark.parametrize(("x", "kind"), [(IMAGES, Items), ({"image": IMAGES, "age": AGES}, Together)])
def test_a_dataset_trains_as_its_arrays_do(threads: Client, x: Any, kind: Any) -> None:
    settings: dict[str, Any] = {"sample_weight": AGES**2, "scoring": "balanced_accuracy"}
    arrays = train(threads, MODEL, x, LETTERS, **settings)
    items = train(threads, MODEL, kind(x, LETTERS), **settings)
    np.testing.assert_array_equal(items.params, arrays.params)
    for what in ("loss", "score"):
        np.testing.assert_array_equal(items.history.evaluations[what], arrays.history.evaluations[what])
    assert items.model.signature == arrays.model.signature
    one = train(threads, MODEL, kind(x, LETTERS), **settings, workers=1)
    np.testing.assert_allclose(one.params, items.params, rtol=1e-9, atol=1e-12)
    model = arrays.model
    np.testing.assert_array_equal(model.predict(kind(x, LETTERS)), model.predict(x))
    assert model.loss(kind(x, LETTERS), None) == model.loss(x, LETTERS)
    assert model.score(kind(x, LETTERS), None, AGES**2) == model.score(x, LETTERS, AGES**2)
    assert not [each.name for each in threading.enumerate() if each.name.startswith("scaleml-prefetch")]


@pytest.mark.parametrize("strategy", [Serial(), LocalSGD(2)])
def test_values_validation_sets_and_augmentation(threads: Client, strategy: Any) -> None:
    model = Shapes("squared_error", dtype="float64", augment=(RandomFlip(),))
    arrays = train(threads, model, IMAGES, AGES, strategy=strategy, validation=(IMAGES[:40], AGES[:40]))
    held = Items(IMAGES[:40], AGES[:40])
    for validation in (held, (IMAGES[:40], AGES[:40])):
        items = train(threads, model, Items(IMAGES, AGES), strategy=strategy, validation=validation)
        np.testing.assert_array_equal(items.params, arrays.params)
        np.testing.assert_array_equal(items.history.evaluations["loss"], arrays.history.evaluations["loss"])
    items = train(threads, model, IMAGES, AGES, strategy=strategy, validation=held)
    np.testing.assert_array_equal(items.params, arrays.params)


def test_class_weights_count_labels_of_items(threads: Client) -> None:
    model = Shapes(dtype="float64", class_weight="balanced")
    arrays, items = train(threads, model, IMAGES, LETTERS), train(threads, model, Items(IMAGES, LETTERS))
    np.testing.assert_array_equal(items.params, arrays.params)


def test_a_comparison_reads_labels_once_and_new_rounds_have_a_new_order(threads: Client) -> None:
    items = Items(IMAGES, LETTERS)
    found = scaleml.compare(
        MODEL, items, None, [Serial(), AllReduce()], client=threads, epochs=1, repeats=2, all_cores=False
    )
    assert {run.state for run in found.runs} == {"finished"}
    assert items.reads == ROWS + 1
    for label in {run.label for run in found.runs}:  # another order of rows in each round
        finals = {float(np.sum(run.params)) for run in found.runs if run.label == label}
        assert len(finals) == sum(run.label == label for run in found.runs)


def test_datasets_of_pytorch(threads: Client) -> None:
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    codes = np.unique(LETTERS, return_inverse=True)[1]
    whole = train(threads, MODEL, IMAGES, codes)
    tensors = data.TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(codes))
    twice = data.ConcatDataset([data.Subset(tensors, range(100)), data.Subset(tensors, range(100, ROWS))])
    for dataset in (tensors, twice, data.Subset(tensors, range(ROWS))):
        np.testing.assert_array_equal(train(threads, MODEL, dataset).params, whole.params)


def test_what_is_wrong_is_said_with_the_item(threads: Client) -> None:
    with pytest.raises(
        ValueError, match="item 77 of the dataset: its __getitem__ raised FileNotFoundError: no such image"
    ):
        train(threads, MODEL, Items(IMAGES, LETTERS, bad=77))  # read here, for its label
    told = Items(IMAGES, LETTERS, bad=77)
    told.targets = LETTERS  # type: ignore[attr-defined]
    with pytest.raises(
        RunFailed, match="item 77 of the dataset: its __getitem__ raised FileNotFoundError: no such image"
    ):
        train(threads, MODEL, told)
    with pytest.raises(TypeError, match=r"cannot be pickled.*open files and connections in __getitem__"):
        train(threads, MODEL, Items(IMAGES, LETTERS, bad=threading.Lock()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="X is a dataset, whose items are"):
        train(threads, MODEL, Items(IMAGES, LETTERS), LETTERS)
    with pytest.raises(ValueError, match=r"X has rows of uint8 \(2, 4, 4\), but X has rows|rows of uint8 \(3, 4, 4\)"):
        train(threads, MODEL, Items(IMAGES, LETTERS), validation=Items(IMAGES[:, :2], LETTERS))
    with pytest.raises(ValueError, match=r"'dog'.*none of"):
        train(threads, MODEL, Items(IMAGES, LETTERS), validation=Items(IMAGES[:9], ["dog"] * 9))
    data = pytest.importorskip("torch.utils.data")
    with pytest.raises(TypeError, match=r"X is a DataLoader: pass its dataset"):
        train(threads, MODEL, data.DataLoader(Items(IMAGES, LETTERS)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="validation is a DataLoader"):
        train(threads, MODEL, IMAGES, LETTERS, validation=data.DataLoader(Items(IMAGES, LETTERS)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes tables: pass arrays"):
        train(threads, scaleml.LinearModel(), data.Subset(Items(IMAGES, LETTERS), range(5)))  # type: ignore[arg-type]
