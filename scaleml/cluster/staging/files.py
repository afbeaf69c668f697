"""Files of pieces: what the client's one and those of workers have in common, and how a rank's worker comes to read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from distributed import Client, Future

from scaleml.data.dataset_shard import DatasetShard
from scaleml.data.shard import ArrayShard, Shard

Cut = Shard | DatasetShard
"""A shard as it is cut, wherever its rows lie."""
Delivered = Shard | ArrayShard | DatasetShard | Future[ArrayShard]
"""A shard of files, or of a dataset, that the rank's worker can read, or one that Dask brings."""


class Files(ABC):
    """The files in which the pieces of one source lie.

    Attributes
    ----------
    irreparable : str
        What to say of rows that nobody could bring back, should their worker be lost; nothing where that cannot be, or is not known.
    """

    irreparable: str = ""

    @abstractmethod
    def refresh(self, client: Client) -> None:
        """Have everything there that lost workers took with them."""

    @abstractmethod
    def bring(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> None:
        """Do beforehand what ``deliver``, with the same arguments, would take long for."""

    @abstractmethod
    def witnesses(self) -> dict[str, tuple[str, bytes]]:
        """Return files that stand for all others, by a name for where they lie: path, and what they end with."""

    @abstractmethod
    def homes(self, shard: Cut) -> dict[str, int]:
        """Return how many rows of a shard lie on which worker."""

    @abstractmethod
    def deliver(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> list[Delivered]:
        """Return a rank's shards, each where its worker can read it.

        Parameters
        ----------
        client : Client
            The cluster.
        shards : sequence of Shard
            As they were cut.
        address : str
            The rank's worker.
        seen : set
            Which of the ``witnesses`` it can read.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove the files."""
