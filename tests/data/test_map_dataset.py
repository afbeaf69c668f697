"""Map-style datasets: what is known of one, how its items become rows, and how errors name them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaleml.data.batches import opened
from scaleml.data.dataset_items import BadItem, ItemFormat, SharedDataset
from scaleml.data.dataset_shard import DatasetShard
from scaleml.data.dataset_source import dataset_source
from scaleml.data.map_dataset import MapDataset, is_dataset, unwrapped
from scaleml.data.row_dtype import record_of
from scaleml.data.shard import ArrayShard
from scaleml.data.stream import Stream

RNG = np.random.default_rng(4)
ROWS = 700
IMAGES = RNG.integers(0, 256, (ROWS, 3, 2, 2), dtype="uint8")
AGES = RNG.standard_normal(ROWS)
LETTERS = np.array(["ant", "bee", "cow"])[np.arange(ROWS) % 3]


class Items:
    """Items as PyTorch's datasets have them; counts how often each is read."""

    def __init__(self, x: Any, y: Any, **more: Any) -> None:
        self.x, self.y, self.read = x, y, np.zeros(len(y), int)
        vars(self).update(more)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        self.read[index] += 1
        x = {name: each[index] for name, each in self.x.items()} if isinstance(self.x, dict) else self.x[index]
        return x, self.y[index]


def test_what_is_a_dataset_and_what_is_not() -> None:
    assert is_dataset(Items(IMAGES, LETTERS))
    for other in (IMAGES, [1], (IMAGES, AGES), {"a": IMAGES}, "file.npy", None, 3, Items):
        assert not is_dataset(other)
        assert unwrapped(other, 5) == (other, 5) or other is IMAGES
    with pytest.raises(ValueError, match="pass y=None"):
        unwrapped(Items(IMAGES, LETTERS), LETTERS)
    with pytest.raises(ValueError, match="no items"):
        unwrapped(Items(IMAGES[:0], LETTERS[:0]), None)


def test_labels_are_what_items_say() -> None:
    for told, reads in (
        ({"targets": LETTERS}, 16),
        ({"labels": LETTERS.tolist()}, 16),
        ({"targets": np.roll(LETTERS, 1)}, ROWS + 16),  # a dataset that transforms its targets
        ({"targets": LETTERS[:9]}, ROWS),
        ({}, ROWS),
    ):
        items = Items(IMAGES, LETTERS, **told)
        source = dataset_source(MapDataset(items), classifier=True, dtype="float32")
        np.testing.assert_array_equal(source.codes, np.arange(ROWS) % 3)
        assert source.classes is not None
        assert source.classes.tolist() == ["ant", "bee", "cow"]
        assert reads <= items.read.sum() <= reads + 1  # the first tells what items are like


def test_datasets_made_of_others_know_their_labels() -> None:
    data = pytest.importorskip("torch.utils.data")
    first, second = Items(IMAGES, LETTERS, targets=LETTERS), Items(IMAGES[:50], LETTERS[:50], targets=LETTERS[:50])
    both = data.ConcatDataset([data.Subset(first, range(0, ROWS, 7)), second])
    np.testing.assert_array_equal(MapDataset(both).labels, [*LETTERS[::7], *LETTERS[:50]])
    assert first.read.sum() + second.read.sum() <= 16


def test_a_dataset_of_tensors_is_its_tensors_and_loaders_are_refused() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    x, y, z = torch.zeros(4, 3), torch.arange(4), torch.ones(4)
    assert unwrapped(data.TensorDataset(x, y), None) == (x, y)
    assert unwrapped(data.TensorDataset(x, z, y), None) == ((x, z), y)
    with pytest.raises(TypeError, match=r"X is a DataLoader: pass its dataset, X\.dataset"):
        unwrapped(data.DataLoader(data.TensorDataset(x, y)), None)

    class Endless(data.IterableDataset):  # type: ignore[name-defined,misc]
        def __iter__(self) -> Any:
            yield 0, 0

    with pytest.raises(TypeError, match=r"X is an IterableDataset.*map-style"):
        unwrapped(Endless(), None)
    with pytest.raises(ValueError, match="its last one is y"):
        unwrapped(data.TensorDataset(x), None)


def form_of(items: Any, classifier: bool = True) -> ItemFormat:
    return dataset_source(MapDataset(items), classifier=classifier, dtype="float32").form("float32")


@pytest.mark.parametrize("x", [IMAGES, AGES, {"image": IMAGES, "age": AGES}, IMAGES.tolist()])
def test_items_become_the_rows_that_their_arrays_do(x: Any) -> None:
    form = form_of(Items(x, LETTERS))
    found, codes = form.read(Items(x, LETTERS), [5, 699, 5])
    wanted = {"": np.asarray(x)} if not isinstance(x, dict) else x
    for name, each in wanted.items():
        part = found[name] if name else found
        assert part.dtype == (np.float32 if each.dtype.kind == "f" else each.dtype)
        np.testing.assert_array_equal(part, each[[5, 699, 5]].astype(part.dtype))
    assert codes.dtype == np.int32
    assert codes.tolist() == [2, 0, 2]


def test_targets_may_be_values_of_any_shape() -> None:
    form = form_of(Items(AGES, IMAGES), classifier=True)  # a mask an image
    assert form.target == np.dtype(("u1", (3, 2, 2)))
    np.testing.assert_array_equal(form.read(Items(AGES, IMAGES), [3, 4])[1], IMAGES[3:5])
    numbers = form_of(Items(IMAGES, AGES.tolist()), classifier=False)
    assert numbers.target == np.dtype("f4")
    pairs = [{"a": age, "b": image} for age, image in zip(AGES, IMAGES, strict=True)]
    assert form_of(Items(IMAGES, pairs), classifier=False).target == record_of(
        {"a": np.dtype("f4"), "b": np.dtype(("u1", (3, 2, 2)))}
    )


def spoilt(place: int, value: Any, of: Any = AGES) -> list[Any]:
    copied = list(of)
    copied[place] = value
    return copied


class Raises(Items):
    def __getitem__(self, index: int) -> Any:
        if index == 6:
            raise FileNotFoundError("6.png")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (Raises(AGES, LETTERS), "item 6 of the dataset: its __getitem__ raised FileNotFoundError: 6.png"),
        (Items(spoilt(6, np.nan), LETTERS), "x of item 6 of the dataset is nan: must be finite"),
        (Items(spoilt(6, 1e300), LETTERS), "x of item 6 of the dataset is inf: must be finite"),
        (
            Items(spoilt(6, np.zeros(2)), LETTERS),
            r"x of item 6 is float64 \(2,\), but the first item's is float32.*pad or resize",
        ),
        (Items(spoilt(6, "a"), LETTERS), "x of item 6 is <U1|x of item 6 is str"),
        (Items(spoilt(6, 300, of=IMAGES[:, 0, 0, 0]), LETTERS), "x of item 6 holds numbers that uint8"),
        (Items(spoilt(6, 0.5, of=IMAGES[:, 0, 0, 0]), LETTERS), "x of item 6 is float64"),
        (Items(AGES, spoilt(6, "dog", of=LETTERS)), "item 6 of the dataset has the label 'dog', which is none of"),
        (Items(AGES, spoilt(6, np.arange(2), of=LETTERS)), "y of item 6 has shape"),
        (Items({"a": AGES, "b": spoilt(6, np.inf)}, LETTERS), "x of item 6 of the dataset is inf"),
    ],
)
def test_a_bad_item_is_named_by_its_number(items: Any, words: str) -> None:
    like = AGES if isinstance(items.x, dict) or not isinstance(items.x[0], np.uint8) else IMAGES[:, 0, 0, 0]
    plain = {"a": AGES, "b": AGES} if isinstance(items.x, dict) else like
    form = form_of(Items(plain, LETTERS))
    with pytest.raises(BadItem, match=words):
        form.read(items, range(4, 9))


def test_an_item_is_a_pair() -> None:
    for item, words in (((1, 2, 3), "a tuple of 3"), ({"x": 1}, "a dict of 1"), (np.zeros(2), "a ndarray")):
        with pytest.raises(BadItem, match=f"item 0 of the dataset is {words}: it must be"):
            form_of(type("One", (), {"__len__": lambda _: 1, "__getitem__": lambda _, __, item=item: item})())


@pytest.mark.parametrize("several", [False, True])
def test_a_rank_reads_items_ahead_in_its_order_round_and_round(several: bool) -> None:
    x = {"image": IMAGES, "age": AGES} if several else IMAGES
    form, order, weights = form_of(Items(x, LETTERS)), RNG.permutation(ROWS), AGES.astype("f4")
    shared = pickle.loads(pickle.dumps(SharedDataset(_items_of_several if several else _items)))
    shards = [
        DatasetShard(shared, order[low:high], form, weights[low:high]) for low, high in ((0, 600), (600, 700), (0, 0))
    ]
    held = ArrayShard(AGES[:, None], AGES, None)
    with opened(shards, [held], budget=1e12) as (sources, validation):
        assert not isinstance(sources[0], tuple)
        assert isinstance(sources[2], tuple)
        assert isinstance(validation, tuple)  # arrays stay in memory
        for _ in range(2):
            for start in range(0, 600, 50):
                got, codes, mass = sources[0].take(start, start + 50)
                mine = order[start : start + 50]
                np.testing.assert_array_equal(got["image"] if several else got, IMAGES[mine])
                np.testing.assert_array_equal(codes, mine % 3)
                np.testing.assert_array_equal(mass, weights[start : start + 50])
        assert sources[1].take(90, 100)[1].tolist() == (order[690:] % 3).tolist()

    with opened([held], shards[1:2], budget=1e12) as (sources, validation):  # held-out items are read once, if they fit
        assert isinstance(validation, tuple)
        np.testing.assert_array_equal(validation[1], order[600:] % 3)
    asked: list[int] = []

    class Watched:
        def read(self, form: ItemFormat, indices: list[int], out: Any) -> Any:
            asked.append(len(indices))
            return shared.read(form, indices, out)

    whole = replace(shards[0], dataset=Watched()).open()  # type: ignore[arg-type]
    assert asked == [256, 256, 88], "of all items no more than a block's at once"
    np.testing.assert_array_equal(whole[0]["image"] if several else whole[0], IMAGES[order[:600]])
    np.testing.assert_array_equal(whole[1], order[:600] % 3)
    np.testing.assert_array_equal(whole[2], weights[:600])
    with opened([held], shards[1:2], budget=0) as (sources, validation):
        assert isinstance(validation, Stream)
        assert sum(len(block[1]) for block in validation.blocks()) == 100


def _items() -> Items:
    return Items(IMAGES, LETTERS)


def _items_of_several() -> Items:
    return Items({"image": IMAGES, "age": AGES}, LETTERS)
