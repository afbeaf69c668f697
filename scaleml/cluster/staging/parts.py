"""A part of a run's data, training or held out: what is known of it, and how its shards come to the ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from distributed import Client

from scaleml.data.inputs import Inputs
from scaleml.data.shards import Shard
from scaleml.data.store import Store, array_shard
from scaleml.data.tables import Table


class Part(ABC):
    """Rows that have been brought to the workers, or to a file that they can read.

    Attributes
    ----------
    rows : int
        How many there are.
    nbytes : int
        About how many bytes X is.
    """

    rows: int
    nbytes: int

    @abstractmethod
    def refresh(self, client: Client) -> None:
        """Have everything there that lost workers took with them."""

    @abstractmethod
    def files(self) -> dict[str, tuple[str, bytes]]:
        """Return files that stand for all others, by a name for where they lie: path, and what they end with."""

    @abstractmethod
    def bring(self, *where: Any) -> None:
        """Do beforehand what ``shards``, with the same arguments, would take long for."""

    @abstractmethod
    def homes(self, ranks: int) -> list[dict[str, int]]:
        """Return, for each of so many equal runs of the rows, how many of them lie on which worker."""

    @abstractmethod
    def shards(
        self,
        client: Client,
        sees: Sequence[set[str]],
        addresses: Sequence[str],
        count: int,
        owned: Sequence[Sequence[int]],
    ) -> list[list[Any]]:
        """Return each rank's shards.

        Parameters
        ----------
        client : Client
            The cluster.
        sees : sequence of sets
            For each rank, which of the ``files`` its worker can read.
        addresses : sequence of str
            The worker of each rank.
        count : int
            Into how many shards the rows are cut.
        owned : sequence of sequences of int
            Which of them each rank owns.

        Returns
        -------
        list of lists
            Shards, or futures of shards that Dask brings.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove what was brought."""


class StoredPart(Part):
    """Rows of NumPy arrays or CSR matrices, copied once, in a given order, to a file of the client's host.

    Workers that can read that file map it; to others, shards are sent through Dask.

    Parameters
    ----------
    inputs : Inputs
        The data.
    order : int array
        Which rows, in which order.
    dtype : str
        The model's dtype.
    name : str
        How errors call the data.

    Raises
    ------
    ValueError
        For a value that is not finite, by row and column.
    """

    def __init__(self, inputs: Inputs, order: Any, dtype: str, name: str, nonce: bytes) -> None:
        self.rows = len(order)
        self._inputs, self._order, self._dtype, self._nonce = inputs, order, dtype, nonce
        self._store = Store(Store.size(inputs, order, dtype))
        try:
            self._table: Table = self._store.write(inputs, order, dtype, name)
            self._store.seal(nonce)
        except BaseException:
            self._store.close()
            raise
        self.nbytes = self.rows * self._table.row_nbytes

    def refresh(self, client: Client) -> None:
        """Do nothing: the client keeps the file."""

    def files(self) -> dict[str, tuple[str, bytes]]:
        """Return the file."""
        return {self._store.path: (self._store.path, self._nonce)}

    def bring(self, *where: Any) -> None:
        """Do nothing."""

    def homes(self, ranks: int) -> list[dict[str, int]]:
        """Return nothing: the file is the client's."""
        return [{} for _ in range(ranks)]

    def shards(
        self,
        client: Client,
        sees: Sequence[set[str]],
        addresses: Sequence[str],
        count: int,
        owned: Sequence[Sequence[int]],
    ) -> list[list[Any]]:
        """Return runs of rows of the file, or of the user's arrays."""
        cuts = self._table.cut(count)
        return [
            [cuts[s] if self._store.path in seen else self._scatter(client, address, cuts[s]) for s in mine]
            for seen, address, mine in zip(sees, addresses, owned, strict=True)
        ]

    def _scatter(self, client: Client, address: str, shard: Any) -> Any:
        part: Shard = array_shard(self._inputs, self._order[shard.start : shard.stop], self._dtype)
        return client.scatter(part, workers=[address], hash=False)

    def close(self) -> None:
        """Remove the file."""
        self._store.close()
