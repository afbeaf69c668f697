"""Augmentations against loops over rows, and what of a run they must not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scaleml.data.augment import RandomCrop, RandomFlip
from scaleml.data.augmented_batches import AugmentedBatches, check_augmentations
from scaleml.data.batches import Batches, Schedule
from scaleml.data.row_dtype import record_of
from scaleml.data.row_seeds import drawn, integers, row_seeds
from scaleml.data.shard_parts import ShardPart, parts_of_rank

RNG = np.random.default_rng(8)
SEEDS = row_seeds(1, 2, np.arange(200))
FIRST = RNG.integers(1, 256, (200, 3, 6, 5), dtype="uint8")
IMAGES: dict[str, Any] = {"first": FIRST, "flat": FIRST[:, 0].astype("f4"), "last": np.moveaxis(FIRST, 1, -1)}


def settings(layout: str) -> Any:
    return {"channels": "last" if layout == "last" else "first"}


@pytest.mark.parametrize("layout", IMAGES)
def test_a_crop_is_a_window_of_the_padded_image(layout: str) -> None:
    images = IMAGES[layout]
    found = RandomCrop(2, fill=7, **settings(layout))(images, SEEDS)
    down, across = integers(SEEDS, 0, 5), integers(SEEDS, 1, 5)
    assert (np.unique(down).tolist(), np.unique(across).tolist()) == ([0, 1, 2, 3, 4],) * 2
    height = {"first": 1, "flat": 0, "last": 0}[layout]
    for image, crop, y, x in zip(images, found, down, across, strict=True):
        sides = [(2, 2) if axis in (height, height + 1) else (0, 0) for axis in range(image.ndim)]
        padded = np.pad(image, sides, constant_values=7)
        window = padded.take(range(y, y + 6), height).take(range(x, x + 5), height + 1)
        np.testing.assert_array_equal(crop, window)
    assert found.dtype == images.dtype


@pytest.mark.parametrize("layout", IMAGES)
def test_a_flip_mirrors_about_so_many(layout: str) -> None:
    images = IMAGES[layout]
    width = {"first": 2, "flat": 1, "last": 1}[layout]
    found = RandomFlip(0.25, **settings(layout))(images, SEEDS)
    mirrored = [np.array_equal(row, np.flip(image, width)) for row, image in zip(found, images, strict=True)]
    same = [np.array_equal(row, image) for row, image in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 30 < sum(mirrored) < 70


def test_one_of_several_inputs_is_changed() -> None:
    x = np.zeros(200, record_of({"image": np.dtype(("u1", (3, 6, 5))), "age": np.dtype("f4")}))
    x["image"], x["age"] = FIRST, np.arange(200)
    for each in (RandomCrop(1), RandomFlip()):
        inside = type(each)(field="image") if isinstance(each, RandomFlip) else RandomCrop(1, field="image")
        found = inside(x, SEEDS)
        np.testing.assert_array_equal(found["image"], each(FIRST, SEEDS))
        np.testing.assert_array_equal(found["age"], x["age"])
        np.testing.assert_array_equal(x["image"], FIRST)
        with pytest.raises(ValueError, match="name the one with the images"):
            each(x, SEEDS)


def shard_of(owned: Any) -> int:
    return owned.shard if isinstance(owned, ShardPart) else owned


def all_rows(owned: Any, shards: Any, sizes: Any, epoch: int, batch: int, **changed: Any) -> dict[int, bytes]:
    """What each row, by its number, looks like in an epoch."""
    given = {"augment": (RandomCrop(1), RandomFlip()), "seed": 3, **changed}
    found = {}
    for mine in owned:
        batches = AugmentedBatches(Schedule(sizes), mine, [shards[shard_of(one)] for one in mine], **given)
        batches.epoch = epoch
        for consumed in range(0, 200, batch):
            x, y, _, rows = batches.take(consumed, min(batch, 200 - consumed))
            assert rows == len(x)
            found |= {int(number): image.tobytes() for number, image in zip(y, x, strict=True)}
    return found


def test_a_row_is_the_same_on_any_ranks_in_any_batches_and_shards() -> None:
    numbers = np.arange(200)

    def cut(sizes: Any) -> Any:
        ends = np.cumsum(sizes)
        return [(FIRST[e - n : e], numbers[e - n : e], None) for e, n in zip(ends, sizes, strict=True)]

    sizes = (70, 60, 70)
    one = all_rows([[0, 1, 2]], cut(sizes), sizes, 4, 32)
    assert len(one) == 200
    assert one == all_rows([[0], [1], [2]], cut(sizes), sizes, 4, 32)
    assert one == all_rows([[0], [1, 2]], cut(sizes), sizes, 4, 50)
    assert one == all_rows([parts_of_rank(3, 4, rank) for rank in range(4)], cut(sizes), sizes, 4, 50)
    assert one == all_rows([[0]], cut((200,)), (200,), 4, 64)
    for other in (all_rows([[0]], cut((200,)), (200,), 5, 64), all_rows([[0]], cut((200,)), (200,), 4, 64, seed=4)):
        assert sum(one[row] == other[row] for row in range(200)) < 40
    plain = Batches(Schedule(sizes), [0], cut(sizes)[:1]).take(0, 20)[0]
    np.testing.assert_array_equal(plain, FIRST[: len(plain)])


def test_random_numbers_of_rows_epochs_and_draws_are_independent() -> None:
    rows = np.arange(5000)
    parts = [row_seeds(s, e, rows) for s in (0, 1) for e in (0, 1)] + [drawn(row_seeds(0, 0, rows), k) for k in (0, 1)]
    uniform = np.array([(part >> np.uint64(11)) * 2.0**-53 for part in parts])
    correlation = np.corrcoef(np.vstack([uniform, [*uniform[0][1:].tolist(), 0.5]]))
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.06
    np.testing.assert_allclose(uniform.mean(axis=1), 0.5, atol=0.02)


@pytest.mark.parametrize(
    ("augment", "kind", "words"),
    [
        (RandomFlip(), TypeError, "must be a tuple of augmentations"),
        ((RandomFlip,), TypeError, "must be a tuple of augmentations"),
        ((RandomCrop(channels="last"),), ValueError, r"images are \(height, width, channels\)"),
        ((lambda x, seeds: x[:1],), ValueError, "it must keep both"),
        ((lambda x, seeds: x.astype("f8"),), ValueError, "it must keep both"),
    ],
)
def test_what_is_no_augmentation_of_such_rows_is_refused(augment: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        check_augmentations(augment, IMAGES["flat"][:2])
