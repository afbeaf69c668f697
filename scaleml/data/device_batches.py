"""Batches on a GPU: cut from data that lies there, where it fits, else brought there one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from scaleml import arrays
from scaleml.arrays import CSR, Array, Matrix
from scaleml.data.batches import Batches, OpenShard
from scaleml.data.piece import Arrays
from scaleml.devices import Device


def batches_on(
    device: Device, batches: Batches, room: float, counts_all: Callable[[Array], bool] = lambda y: True
) -> Batches:
    """Return the batches on a device.

    Parameters
    ----------
    device : Device
    batches : Batches
        In the processor's memory.
    room : float
        Bytes of data that may lie on the device all the time.
    counts_all : callable
        Given targets, says whether each row weighs something by them.
    """
    shards = batches.shards
    whole = [shard for shard in shards if isinstance(shard, tuple)]
    if len(whole) < len(shards) or sum(map(_nbytes, whole)) > room or type(batches) is not Batches:
        return _BroughtBatches(device, batches, counts_all)
    placed: list[OpenShard] = []
    for x, y, weights in whole:
        there = device.put(y), None if weights is None else device.put(weights)
        if arrays.is_sparse(x):
            placed.append(_CsrRows(device.put(x), x.indptr, *there))
        else:
            placed.append((device.put(x), *there))
    found = Batches(batches.schedule, batches.parts, placed)
    found.weights_are_positive = all(_all_weigh(y, weights, counts_all) for _, y, weights in whole)
    return found


def _all_weigh(y: Array, weights: Array | None, counts_all: Callable[[Array], bool]) -> bool:
    return (weights is None or bool((weights > 0).all())) and counts_all(y)


def _nbytes(shard: Arrays) -> int:
    parts: list[Array] = []
    for part in shard:
        if part is not None:
            parts += [part.data, part.indices, part.indptr] if arrays.is_sparse(part) else [part]
    return sum(part.nbytes for part in parts)


@final
class _CsrRows:
    """CSR rows on a GPU, cut by pointers that the processor has, too: to read them there would be to wait."""

    def __init__(self, x: CSR, pointers: Array, y: Array, weights: Array | None) -> None:
        self.rows = int(y.shape[0])
        self._x, self._pointers, self._y, self._weights = x, pointers, y, weights

    def take(self, start: int, stop: int) -> Arrays:
        """Return rows ``start:stop``."""
        x, (first, last) = self._x, self._pointers[[start, stop]].tolist()
        pointers = x.indptr[start : stop + 1] - first
        cut = arrays.compressed(
            type(x), x.data[first:last], x.indices[first:last], pointers, (stop - start, x.shape[1])
        )
        return cut, self._y[start:stop], None if self._weights is None else self._weights[start:stop]

    def blocks(self) -> list[Arrays]:
        """Return all rows, as one block."""
        return [self.take(0, self.rows)]


@final
class _BroughtBatches(Batches):
    """Batches of data that stays in the processor's memory, or on disk; in the order of those that they are made of."""

    def __init__(self, device: Device, source: Batches, counts_all: Callable[[Array], bool]) -> None:
        super().__init__(source.schedule, source.parts, source.shards)
        self._device, self._source, self._counts_all = device, source, counts_all

    def take(self, consumed: int, count: int) -> tuple[Matrix, Array, Array | None, int]:
        """Return a batch on the device; see `Batches.take`."""
        self._source.epoch = self.epoch
        x, y, weights, rows = self._source.take(consumed, count)
        put = self._device.put
        self.weights_are_positive = _all_weigh(y, weights, self._counts_all)
        return put(x), put(y), None if weights is None else put(weights), rows

    def random_state(self) -> dict[str, Array]:
        """See `Batches.random_state`."""
        return self._source.random_state()

    def set_random_state(self, state: dict[str, Array]) -> None:
        """See `Batches.set_random_state`."""
        self._source.set_random_state(state)
