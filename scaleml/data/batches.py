"""Batches: a pure function of the rows consumed so far, made of slices of the shards that a rank has opened, which take turns."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix
from scaleml.data.dataset_shard import DatasetShard
from scaleml.data.mapped_runs import MappedRuns
from scaleml.data.piece import Arrays
from scaleml.data.read_ahead import ReadAhead
from scaleml.data.shard import ArrayShard, Shard
from scaleml.data.shard_parts import ShardPart
from scaleml.data.stream import Prefetch, Stream


class TakesRows(Protocol):
    """Rows that lie elsewhere, such as on a GPU."""

    def take(self, start: int, stop: int) -> Arrays: ...
    def blocks(self) -> Iterable[Arrays]: ...


OpenShard = Arrays | MappedRuns | Stream | ReadAhead | TakesRows
"""A shard in reach of its rank: arrays, mapped or in memory, rows of several mapped files, or rows that are read ahead."""

AnyShard = Shard | ArrayShard | DatasetShard
OFTEN: Final = 20
"""Passes over the data that pay for a copy of it in a rank's own memory: each gains a tenth, the copy takes about two."""


@contextlib.contextmanager
def opened(
    shards: Sequence[AnyShard],
    held_out: Sequence[AnyShard],
    budget: float,
    *,
    passes: int = 1,
    room: float = 0,
    parts: Sequence[ShardPart] = (),
) -> Iterator[tuple[list[OpenShard], Arrays | Stream | None]]:
    """Bring a rank's shards, and its part of the held-out data, into reach.

    Parameters
    ----------
    shards, held_out : sequences of Shard, ArrayShard or DatasetShard
        What the rank was given.
    budget : float
        Bytes that may be kept in memory. When all is larger, what lies in files is read block by block as it is needed, as items of
        a dataset to train on always are; held-out ones are read once.
    passes : int
        How many times the shards are surely read.
    room : float
        Bytes that a copy of what lies in mapped files may take, if it is read often.
    parts : sequence of ShardPart
        What of each shard the rank owns: of a dataset no more is read.

    Yields
    ------
    opened : list of Arrays, MappedRuns, Stream or ReadAhead
        The shards, for ``Batches``.
    validation : Arrays, Stream or None
        The held-out rows, all together.
    """
    everything = [*shards, *held_out]
    anew = sum(shard.nbytes for shard in shards if isinstance(shard, DatasetShard))
    fits = sum(shard.nbytes for shard in everything) - anew <= budget
    if fits and not any(isinstance(shard, DatasetShard) for shard in shards):
        copied = passes >= OFTEN and sum(shard.nbytes for shard in shards) <= room
        yield (
            [_near(shard) if copied else _where_it_lies(shard) for shard in shards],
            joined([shard.open() for shard in held_out]),
        )
        return
    prefetch = Prefetch()
    mine = parts or [ShardPart(index) for index in range(len(shards))]
    try:
        yield (
            [_to_train_on(shard, part, prefetch, fits=fits) for shard, part in zip(shards, mine, strict=True)],
            _streamed(held_out[0], prefetch, fits)
            if len(held_out) == 1
            else joined([shard.open() for shard in held_out]),
        )
    finally:
        prefetch.close()


def _near(shard: AnyShard) -> Arrays:
    x, y, weights = shard.open()
    return (arrays.own_copy(x) if shard.is_mapped and not arrays.is_sparse(x) else x), y, weights


def _where_it_lies(shard: AnyShard) -> Arrays | MappedRuns:
    return MappedRuns(shard.runs) if isinstance(shard, Shard) and shard.is_in_order else shard.open()


def _to_train_on(shard: AnyShard, part: ShardPart, prefetch: Prefetch, *, fits: bool) -> OpenShard:
    if isinstance(shard, DatasetShard):
        return _streamed(shard, prefetch, fits=False) if part.is_whole else ReadAhead(shard.blocks(), prefetch)
    return _streamed(shard, prefetch, fits)


def _streamed(shard: AnyShard, prefetch: Prefetch, fits: bool) -> Arrays | Stream:
    """Return what lies in files, or in a dataset, as a stream, unless it ``fits`` into memory."""
    if isinstance(shard, ArrayShard) or not shard.rows or fits:
        return shard.open()
    return Stream(shard.blocks(), prefetch)


def joined(shards: Sequence[Arrays]) -> Arrays | None:
    """Return the rows of some shards one below the other; None for no shards."""
    if not shards:
        return None
    schedule = Schedule([int(y.shape[0]) for _, y, _ in shards])
    return Batches(schedule, range(len(shards)), shards).take(0, schedule.rows)[:3]


class Schedule:
    """How the shards take turns through an epoch.

    After ``consumed`` rows of an epoch, shard ``s`` of ``S``, which holds ``n_s`` of the ``n`` rows, has given
    ``floor(consumed * n_s / n + s / S)`` of them. So a batch is one contiguous slice of each shard, every row
    comes once an epoch, and the ranks that hold the shards do not matter. With equal shards the slices of a
    batch of B rows add up to exactly B (Hermite's identity); with unequal ones to within the number of shards.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each shard.

    Examples
    --------
    >>> schedule = Schedule([4, 4])
    >>> [schedule.taken(0, consumed) for consumed in (0, 3, 6, 8)]
    [0, 1, 3, 4]
    >>> [schedule.taken(1, consumed) for consumed in (0, 3, 6, 8)]
    [0, 2, 3, 4]
    """

    __slots__ = ("_divisor", "_factors", "rows", "sizes", "whole")

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(int(size) for size in sizes)
        self.rows = sum(self.sizes)
        count = len(self.sizes)
        self.whole = count == 1
        self._divisor = max(1, self.rows * count)
        self._factors = [(size * count, index * self.rows) for index, size in enumerate(self.sizes)]

    def taken(self, shard: int, consumed: int) -> int:
        """Return how many rows of ``shard`` lie in the first ``consumed`` rows of an epoch."""
        factor, phase = self._factors[shard]
        return (consumed * factor + phase) // self._divisor


class Batches:
    """The batches of one rank: for each global batch, the slices of the shards that this rank owns.

    Parameters
    ----------
    schedule : Schedule
        How all shards take turns.
    owned : sequence of int or ShardPart
        Which shards, or parts of shards, this rank owns.
    shards : sequence of Arrays, MappedRuns, Stream or ReadAhead
        The contents of these shards, in the same order.

    Attributes
    ----------
    epoch : int
        Which epoch it is, said by whoever counts them: for what differs between epochs.
    """

    def __init__(self, schedule: Schedule, owned: Sequence[int | ShardPart], shards: Sequence[OpenShard]) -> None:
        self.epoch = 0
        assert len(owned) == len(shards)
        self.schedule: Final = schedule
        self.parts: Final = tuple(one if isinstance(one, ShardPart) else ShardPart(one) for one in owned)
        self.owned: Final = tuple(part.shard for part in self.parts)
        self.shards = self._shards = list(shards)
        self._reading = [index for index, shard in enumerate(shards) if isinstance(shard, ReadAhead)]
        self.weights_are_positive = False  # unless somebody has looked
        first = shards[0]
        self._only = None
        if len(owned) == 1 and isinstance(first, tuple) and self.parts[0].is_whole:
            self._only = (self.owned[0], *first, not arrays.is_sparse(first[0]))

    def slice_of(self, part: ShardPart, consumed: int, count: int) -> tuple[int, int]:
        """Return which rows of its shard a part has in a batch."""
        taken = self.schedule.taken
        start, stop = taken(part.shard, consumed), taken(part.shard, consumed + count)
        return (start, stop) if part.is_whole else part.cut(start, stop)

    def take(self, consumed: int, count: int) -> tuple[Matrix, Array, Array | None, int]:
        """Return this rank's rows of the batch ``[consumed, consumed + count)`` of an epoch.

        Returns
        -------
        x, y, weights, rows
            ``weights`` is None where the data has none; ``rows`` may be 0.
        """
        taken = self.schedule.taken
        if self._only is not None:
            index, x, y, weights, dense = self._only
            start, stop = consumed, consumed + count
            if not self.schedule.whole:
                start, stop = taken(index, start), taken(index, stop)
            return (
                x[start:stop] if dense else arrays.rows(x, start, stop),
                y[start:stop],
                None if weights is None else weights[start:stop],
                stop - start,
            )
        parts = []
        for part, shard in zip(self.parts, self._shards, strict=True):
            start, stop = self.slice_of(part, consumed, count)
            if stop > start:
                parts.append(_slice(shard, start, stop))
        if self._reading:
            self._read_next(consumed, count)
        return self._joined(parts)

    def _read_next(self, consumed: int, count: int) -> None:
        """Have read what the next batch will most likely be."""
        consumed += count
        consumed = consumed if consumed < self.schedule.rows else 0
        count = min(count, self.schedule.rows - consumed)
        for index in self._reading:
            shard = self._shards[index]
            assert isinstance(shard, ReadAhead)
            shard.ahead(*self.slice_of(self.parts[index], consumed, count))

    def _joined(self, parts: list[Arrays]) -> tuple[Matrix, Array, Array | None, int]:
        # One product over joined rows is far cheaper than one a slice; the copy is the price of many shards.
        if not parts:
            return *_slice(self._shards[0], 0, 0), 0
        if len(parts) == 1:
            x, y, weights = parts[0]
        else:
            x = arrays.concatenate_rows([part[0] for part in parts])
            xp = arrays.namespace(parts[0][1])
            y = xp.concatenate([part[1] for part in parts])
            weights = None if parts[0][2] is None else xp.concatenate([part[2] for part in parts])
        return x, y, weights, int(y.shape[0])

    def place(self, began: int, own: float) -> int:
        """Return after how many rows of all ranks this one has had ``own`` rows of its own since ``began`` rows of all.

        Examples
        --------
        >>> rows = np.zeros((4, 1)), np.zeros(4), None
        >>> batches = Batches(Schedule([4, 4]), [1], [rows])
        >>> [batches.place(0, own) for own in (0, 2, 4, 5)], batches.place(8, 4)
        ([0, 3, 8, 9], 16)
        """
        epoch, place = divmod(began, self.schedule.rows)
        an_epoch = self._own(self.schedule.rows)
        if not an_epoch:
            return began
        more, rest = divmod(own + self._own(place), an_epoch)
        return (epoch + int(more)) * self.schedule.rows + bisect_left(range(self.schedule.rows), rest, key=self._own)

    def _own(self, consumed: int) -> int:
        """Return how many of the first ``consumed`` rows of an epoch are this rank's: of a shard that it owns in part, about."""
        taken = self.schedule.taken
        return sum(taken(part.shard, consumed) * (part.high - part.low) // part.of for part in self.parts)

    def column_counts(self, columns: int) -> tuple[Array, int]:
        """Return how many of this rank's rows, of CSR data, have each of the columns, and how many rows there are.

        Of a shard that several ranks own in part, each counts all: the share of the rows that have a column is what is wanted.
        """
        counts, rows = np.zeros(columns, np.int64), 0
        for shard in self._shards:
            for x, y, _ in [shard] if isinstance(shard, tuple) else shard.blocks():
                assert arrays.is_sparse(x), "columns are counted of CSR data alone"
                counts += np.bincount(x.indices, minlength=columns)
                rows += int(y.shape[0])
        return counts, rows

    def random_state(self) -> dict[str, Array]:
        """Return the random streams that are no function of seed and step: none, where the order is fixed."""
        return {}

    def set_random_state(self, state: dict[str, Array]) -> None:
        """Go back to what `random_state` returned."""

    def locate(self, consumed: int, count: int, row: int) -> tuple[int, int]:
        """Return the shard, and the row within it, of row ``row`` of this rank's part of a batch."""
        for part in self.parts:
            start, stop = self.slice_of(part, consumed, count)
            if row < stop - start:
                return part.shard, start + row
            row -= stop - start
        raise AssertionError("the row lies outside the batch")


def _slice(shard: OpenShard, start: int, stop: int) -> Arrays:
    if not isinstance(shard, tuple):
        return shard.take(start, stop)
    x, y, weights = shard
    return arrays.rows(x, start, stop), y[start:stop], None if weights is None else weights[start:stop]
