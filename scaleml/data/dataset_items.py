"""Items of a map-style dataset, such as PyTorch's: read by their numbers into rows of X and y, each error naming the item."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.labels import plain
from scaleml.data.row_dtype import Row, in_words, inputs_of, is_several
from scaleml.data.tensors import array_of, plain_array, several_of

_SHOWN: Final = 10


class BadItem(ValueError):
    """An item that cannot be trained on."""


@final
@dataclass(frozen=True)
class ItemFormat:
    """What the items of a dataset become.

    Parameters
    ----------
    row : numpy.dtype
        Of a row of X.
    target : numpy.dtype or None
        Of a row of y; None for labels.
    classes : (k,) array or None
        The labels, sorted.
    codes : str
        The dtype of their codes.
    """

    row: Row
    target: Row | None
    classes: Array | None = None
    codes: str = "int32"

    def read_inputs(self, dataset: Any, indices: Sequence[int]) -> Array:
        """Return X of some items; see ``read``."""
        x = np.empty(len(indices), self.row)
        for place, (index, item) in enumerate(zip(indices, fetched(dataset, indices), strict=True)):
            _put(x, place, halves(item, index)[0], self.row, f"x of item {index}")
        _refuse_non_finite(x, indices, "x")
        return x

    def read(self, dataset: Any, indices: Sequence[int], out: Array | None = None) -> tuple[Array, Array]:
        """Return X and y of some items; X in ``out`` if that is given.

        Raises
        ------
        BadItem
            For one that cannot be read, or is not like the first: with its number and the cause.
        """
        x = np.empty(len(indices), self.row) if out is None else out
        y = None if self.target is None else np.empty(len(indices), self.target)
        labels = []
        for place, (index, item) in enumerate(zip(indices, fetched(dataset, indices), strict=True)):
            value, target = halves(item, index)
            _put(x, place, value, self.row, f"x of item {index}")
            if y is None:
                labels.append(label_of(target, index))
            else:
                assert self.target is not None
                _put(y, place, target, self.target, f"y of item {index}")
        _refuse_non_finite(x, indices, "x")
        if y is None:
            return x, self._coded(labels, indices)
        _refuse_non_finite(y, indices, "y")
        return x, y

    def _coded(self, labels: Sequence[Any], indices: Sequence[int]) -> Array:
        classes = self.classes
        assert classes is not None, "labels have classes"
        try:
            found = np.asarray(labels) if labels else classes[:0]
            codes = np.minimum(np.searchsorted(classes, found), len(classes) - 1)
            wrong = np.flatnonzero(classes[codes] != found)
        except TypeError as error:
            raise BadItem(
                f"the labels of the items {indices[0]} to {indices[-1]} have no common order: {error}"
            ) from error
        if len(wrong):
            some = f"{[plain(label) for label in classes[:_SHOWN]]}{' and others' if len(classes) > _SHOWN else ''}"
            place = int(wrong[0])
            raise BadItem(
                f"item {indices[place]} of the dataset has the label {plain(found[place])!r}, which is none of {some}"
            )
        return codes.astype(self.codes)


def fetched(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """Return some items: all at once where the dataset has ``__getitems__``, as PyTorch's loaders do.

    Raises
    ------
    BadItem
        Where its code raises.
    """
    whole = getattr(dataset, "__getitems__", None)
    if whole is not None:
        try:
            found = list(whole(list(indices)))
        except Exception as error:
            raise BadItem(f"the items {list(indices)[:_SHOWN]} of the dataset: {_words(error)}") from error
        if len(found) == len(indices):
            return found
        raise BadItem(f"__getitems__ of {len(indices)} items returned {len(found)}")
    found = []
    for index in indices:
        try:
            found.append(dataset[index])
        except Exception as error:
            raise BadItem(f"item {index} of the dataset: {_words(error)}") from error
    return found


def _words(error: Exception) -> str:
    return f"its __getitem__ raised {type(error).__name__}: {error}"


def halves(item: Any, index: int) -> tuple[Any, Any]:
    """Return x and y of an item; raise BadItem for what is no such pair."""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    what = f"{type(item).__name__} of {len(item)}" if isinstance(item, tuple | list | dict) else type(item).__name__
    raise BadItem(
        f"item {index} of the dataset is a {what}: it must be (x, y); of several inputs x is a dict or a tuple of them"
    )


def label_of(target: Any, index: int) -> Any:
    """Return an item's label as a number or a string; raise BadItem for several."""
    values = target if isinstance(target, str) else plain_array(target)
    if isinstance(values, np.ndarray):
        if values.size != 1:
            raise BadItem(f"y of item {index} has shape {values.shape}: a classifier has one label a row")
        return values.reshape(()).item()
    return values


def rows_of_item(value: Any, name: str) -> dict[str, Array] | Array:
    """Return one item's x or y as a row each of its inputs."""
    several = several_of(value, name)
    if several is None:
        return array_of([value], name)
    return {key: array_of([each], f"{name}[{key!r}]") for key, each in several.items()}


def _put(out: Array, place: int, value: Any, row: Row, name: str) -> None:
    """Write a value into a row; raise BadItem where it has another shape, or is no such number."""
    several = is_several(row)
    given = several_of(value, name) if several else {"": value}
    wanted = inputs_of(row)
    if given is None or given.keys() != wanted.keys():
        has = "one input" if given is None else f"the inputs {', '.join(map(repr, given))}"
        raise BadItem(f"{name} has {has}, but the first item's rows are {in_words(row)}")
    for key, kind in wanted.items():
        found = plain_array(given[key])
        base = kind.base
        if found.shape != kind.shape or found.dtype.kind not in "biuf" or (found.dtype.kind == "f" != base.kind):
            raise BadItem(
                f"{name}{f'[{key!r}]' if key else ''} is {found.dtype.name} {found.shape}, but the first item's is {in_words(kind)}: items "
                "must be alike; pad or resize them in __getitem__"
            )
        into = out[key] if several else out
        with np.errstate(
            over="ignore"
        ):  # what is too large becomes infinite and is refused with the others of its block
            into[place] = found
        if base.kind != "f" and not np.can_cast(found.dtype, base) and not (into[place] == found).all():
            raise BadItem(f"{name} holds numbers that {base.name}, as which the first item came, does not have")


def _refuse_non_finite(values: Array, indices: Sequence[int], what: str) -> None:
    for key, kind in inputs_of(values.dtype).items():
        part = values[key] if key else values
        if kind.base.kind != "f":
            continue
        with np.errstate(all="ignore"):
            if np.isfinite(part.sum(dtype=part.dtype)):
                continue
        wrong = np.argwhere(~np.isfinite(part))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            at = f" at {list(place[1:])}" if len(place) > 1 else ""
            raise BadItem(f"{what} of item {indices[place[0]]} of the dataset is {part[place]}{at}: must be finite")


@final
class SharedDataset:
    """A dataset on a worker: pickled until somebody opens it, once, and read by one thread at a time.

    Parameters
    ----------
    call : callable
        Returns the dataset: a sealed call.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._lock, self._opened = threading.Lock(), None

    def read(self, form: ItemFormat, indices: Sequence[int], out: Array | None) -> tuple[Array, Array]:
        """Return X and y of some items; see `ItemFormat.read`."""
        with self._lock:
            if self._opened is None:
                self._opened = self._call()
            return form.read(self._opened, indices, out)

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedDataset, (self._call,)
