"""Map-style datasets, such as PyTorch's: what is known of one on the client, its labels looked for once."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.dataset_items import BadItem, fetched, halves, label_of, rows_of_item
from scaleml.data.row_dtype import ALONE, Row, record_of, row_of
from scaleml.data.tensors import plain_array

_CHECKED: Final = 16
"""Items whose labels are compared with those that the dataset says that it has: it may transform them as it gives them out."""
_AT_ONCE: Final = 256
_ARRAYS: Final = ("dtype", "iloc", "tocsr", "__array__", "__dask_graph__")
_LISTS: Final = (str, bytes, list, tuple, range, array, deque, Mapping, type)


def is_dataset(given: object) -> bool:
    """Whether this is a map-style dataset: something with items by number, and a length, that is no array, frame or list.

    Examples
    --------
    >>> import numpy as np
    >>> is_dataset(np.zeros(3)), is_dataset([1, 2]), is_dataset({"a": [1]})
    (False, False, False)
    """
    if isinstance(given, MapDataset):
        return True
    if isinstance(given, _LISTS):
        return False
    return (
        hasattr(given, "__getitem__")
        and hasattr(given, "__len__")
        and not any(hasattr(given, each) for each in _ARRAYS)
    )


def unwrapped(X: Any, y: Any, what: str = "X") -> tuple[Any, Any]:
    """Return X and y as they are, or, of a dataset, a `MapDataset` and None; of one of tensors the tensors.

    Raises
    ------
    TypeError, ValueError
        For loaders, and for datasets without numbered items; for a y beside a dataset.
    """
    names = _kinds(X)
    if "DataLoader" in names:
        raise TypeError(
            f"{what} is a DataLoader: pass its dataset, {what}.dataset, and its batch_size to train; ranks read and shuffle it themselves"
        )
    if "IterableDataset" in names:
        raise TypeError(
            f"{what} is an IterableDataset, whose items have no numbers: pass a map-style one (__getitem__ and __len__), arrays, or a Dask "
            "array"
        )
    if isinstance(X, MapDataset) or not is_dataset(X):
        return X, y
    if y is not None:
        raise ValueError(f"{what} is a dataset, whose items are (x, y): pass y=None")
    if "TensorDataset" in names and type(X).__name__ == "TensorDataset":  # not one that does more
        *inputs, targets = X.tensors
        if not inputs:
            raise ValueError(f"{what} is a TensorDataset of one tensor: its last one is y; add it")
        return (inputs[0] if len(inputs) == 1 else tuple(inputs)), targets
    return MapDataset(X), None


def refuse_dataset(X: object, model: object) -> None:
    """Raise TypeError for a dataset or loader of PyTorch where a model takes tables."""
    if isinstance(X, MapDataset) or _kinds(X):
        raise TypeError(
            f"X is a {type(X).__name__}, but {model!r} takes tables: pass arrays, such as X, y = dataset.tensors; datasets are for models "
            "that take rows of any shape, such as TorchModel"
        )


def _kinds(X: object) -> set[str]:
    """Return which of PyTorch's datasets and loaders this is, without importing PyTorch."""
    return {kind.__name__ for kind in type(X).__mro__ if kind.__module__.startswith("torch.utils.data")}


@final
class MapDataset:
    """A dataset as a user has passed it.

    Parameters
    ----------
    dataset : object
        With ``__getitem__`` of numbers from 0, which returns (x, y), and ``__len__``.

    Raises
    ------
    ValueError
        For one without items.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._rows = len(dataset)
        if not self._rows:
            raise ValueError(f"the dataset {type(dataset).__name__} has no items: at least one is needed")

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def first(self) -> tuple[Any, Any]:
        """The first item."""
        return halves(fetched(self.dataset, [0])[0], 0)

    @property
    def first_inputs(self) -> dict[str, Array]:
        """The first item's x as a batch of one row: its inputs by name, one that stands for itself without."""
        found = rows_of_item(self.first[0], "x of item 0")
        return found if isinstance(found, dict) else {ALONE: found}

    def row(self, dtype: str) -> Row:
        """Return what an item's x becomes."""
        return _row(self.first[0], "x of item 0", dtype)

    def target(self, dtype: str) -> Row:
        """Return what an item's y becomes, which is no label."""
        return _row(self.first[1], "y of item 0", dtype)

    @property
    def has_labels(self) -> bool:
        """Whether an item's y may be a label: one number or string, not integers of one and more dimensions."""
        target = self.first[1]
        if isinstance(target, Mapping | tuple):
            raise BadItem(
                f"y of item 0 of the dataset is a {type(target).__name__}, but a classifier has one label a row"
            )
        return isinstance(target, str) or plain_array(target).size == 1 or plain_array(target).dtype.kind not in "iub"

    @cached_property
    def labels(self) -> Array:
        """The labels of all items, (n,): as the dataset's ``targets`` or ``labels`` say, if its items agree; else all are read."""
        told = _told(self.dataset, self._rows)
        if told is not None:
            some = np.unique(np.linspace(0, self._rows - 1, min(_CHECKED, self._rows)).astype(int)).tolist()
            if self._read(some) == told[some].tolist():
                return told
        found: list[Any] = []
        for start in range(0, self._rows, _AT_ONCE):
            found += self._read(range(start, min(start + _AT_ONCE, self._rows)))
        return np.asarray(found)

    def _read(self, indices: Any) -> list[Any]:
        items = fetched(self.dataset, list(indices))
        return [label_of(halves(item, index)[1], index) for index, item in zip(indices, items, strict=True)]


def _told(dataset: Any, rows: int) -> Array | None:
    """Return what a dataset, or those that it is made of, says that its labels are; None where it says nothing."""
    parts, inner, indices = (getattr(dataset, name, None) for name in ("datasets", "dataset", "indices"))
    found: Array | None = None
    try:
        if parts is not None:
            told = [_told(part, len(part)) for part in parts]
            found = None if any(part is None for part in told) else np.concatenate([p for p in told if p is not None])
        elif inner is not None and indices is not None:
            whole = _told(inner, len(inner))
            found = None if whole is None else whole[np.asarray(indices)]
        else:
            values = next(
                (v for v in (getattr(dataset, name, None) for name in ("targets", "labels")) if v is not None), None
            )
            found = None if values is None else plain_array(values)
    except (TypeError, ValueError, IndexError):  # something else by that name
        return None
    return found if found is not None and found.shape == (rows,) and found.dtype.kind in "biufUS" else None


def _row(value: Any, name: str, dtype: str) -> Row:
    found = rows_of_item(value, name)
    if isinstance(found, dict):
        return record_of({key: row_of(each, dtype) for key, each in found.items()})
    return row_of(found, dtype)
