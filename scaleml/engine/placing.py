"""Bringing the data to the workers: once, through a file that local workers map, or through Dask to remote ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Client

from scaleml.data.inputs import Inputs
from scaleml.data.shards import Shard, Table
from scaleml.data.store import Store, array_shard
from scaleml.engine import calls


def _can_read(path: str, nonce: bytes) -> bool:
    """Whether this process sees the client's file, by its content; runs on a worker."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(nonce), os.SEEK_END)
            return file.read() == nonce
    except OSError:
        return False


@dataclass
class PlacedData:
    """The data of one or several runs, on its way to the workers.

    The client copies it once, shuffled, to a file of this host. Workers that can read that file map it; only if some
    cannot, shards are scattered through Dask.

    Parameters
    ----------
    train, held_out : Inputs
        The data; ``held_out`` may be None.
    rows, held_out_rows : int arrays
        Which rows, in which order.
    dtype : str
        The model's dtype.
    """

    train: Inputs
    held_out: Inputs | None
    rows: Any
    held_out_rows: Any
    dtype: str
    _store: Store | None = None
    _tables: list[Table] = field(default_factory=list)
    _sees_store: dict[str, bool] = field(default_factory=dict)
    _nonce: bytes = b""

    def prepare(self) -> None:
        """Check every value and write the file.

        Raises
        ------
        ValueError
            For a value that is not finite, by row and column.
        """
        parts = [(self.train, self.rows, "X"), (self.held_out, self.held_out_rows, "the validation X")]
        parts = [part for part in parts if part[0] is not None]
        self._nonce = os.urandom(16)
        size = sum(Store.size(inputs, rows, self.dtype) for inputs, rows, _ in parts if inputs is not None)
        self._store = store = Store(size)
        try:
            self._tables = [
                store.write(inputs, rows, self.dtype, name) for inputs, rows, name in parts if inputs is not None
            ]
            store.seal(self._nonce)
        except BaseException:
            self.close()
            raise

    def shards_for(
        self, client: Client, addresses: Sequence[str], shards: int, owned: Sequence[Sequence[int]]
    ) -> list[tuple[list[Any], list[Any]]]:
        """Return, for each training rank, its shards and its part of the held-out data.

        Parameters
        ----------
        client : Client
            Where the workers are.
        addresses : sequence of str
            The worker of each training rank.
        shards : int
            Into how many shards the data is cut.
        owned : sequence of sequences of int
            Which shards each rank owns.

        Returns
        -------
        list of (shards, held-out shards)
            Shards of a mapped file, or futures of shards that Dask brings.
        """
        assert self._store is not None
        near = self._nearby(client, addresses)
        cuts = [self._tables[0].cut(shards), *(table.cut(len(addresses)) for table in self._tables[1:])]
        result = []
        for rank, address in enumerate(addresses):
            if near[address]:
                mine: list[Any] = [cuts[0][s] for s in owned[rank]]
                held: list[Any] = [cut[rank] for cut in cuts[1:]]
            else:
                mine = [self._scatter(client, address, self.train, self.rows, cuts[0][s]) for s in owned[rank]]
                assert len(cuts) == 1 or self.held_out is not None
                held = [
                    self._scatter(client, address, self.held_out, self.held_out_rows, cut[rank]) for cut in cuts[1:]
                ]
            result.append((mine, held))
        return result

    def _nearby(self, client: Client, addresses: Sequence[str]) -> dict[str, bool]:
        unknown = [address for address in dict.fromkeys(addresses) if address not in self._sees_store]
        if unknown:
            assert self._store is not None
            self._sees_store |= calls.on_workers(client, 30, _can_read, self._store.path, self._nonce, workers=unknown)
        return self._sees_store

    def _scatter(self, client: Client, address: str, inputs: Inputs | None, rows: Any, shard: Any) -> Any:
        assert inputs is not None
        part: Shard = array_shard(inputs, rows[shard.start : shard.stop], self.dtype)
        return client.scatter(part, workers=[address], hash=False)

    def close(self) -> None:
        """Remove the file."""
        if self._store is not None:
            self._store.close()

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return os.path.getsize(self._store.path) if self._store is not None else 0


def rows_of(count: int) -> Any:
    """Return the rows of data that is taken in its own order."""
    return np.arange(count, dtype=np.int64)
