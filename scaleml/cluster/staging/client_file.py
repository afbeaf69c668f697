"""The client's file: arrays of this process as one piece, copied once; workers of its host map it."""

from __future__ import annotations

from collections.abc import Sequence

from distributed import Client

from scaleml.arrays import Array
from scaleml.cluster.staging.files import Cut, Delivered, Files
from scaleml.data.piece import Run
from scaleml.data.piece_file import PieceFile
from scaleml.data.shard import ArrayShard
from scaleml.data.tensor_source import LocalSource


class ClientFile(Files):
    """Rows of NumPy arrays or CSR matrices, copied once, in a given order, to a file of the client's host.

    Workers that can read that file map it; to others, shards are sent through Dask.

    Parameters
    ----------
    source : ArraySource or TensorSource
        The data.
    order : int array
        Which rows, in which order.
    dtype : str
        The model's dtype.
    name : str
        How errors call the data.
    nonce : bytes
        By which other processes know the file.

    Attributes
    ----------
    piece : Piece
        The rows.

    Raises
    ------
    ValueError
        For a value that is not finite, by row and column.
    """

    def __init__(self, source: LocalSource, order: Array, dtype: str, name: str, nonce: bytes) -> None:
        self._nonce = nonce
        self._file = PieceFile(PieceFile.size(source, order, dtype))
        try:
            self.piece = self._file.write(source, order, dtype, name)
            self._file.seal(nonce)
        except BaseException:
            self._file.close()
            raise

    @property
    def runs(self) -> list[Run]:
        """All rows."""
        return [Run(self.piece, 0, self.piece.rows)]

    def refresh(self, client: Client) -> None:
        """Do nothing: the client keeps the file."""

    def bring(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> None:
        """Do nothing: whoever cannot read the file is sent rows when its rank is."""

    def witnesses(self) -> dict[str, tuple[str, bytes]]:
        """Return the file."""
        return {self.piece.path: (self.piece.path, self._nonce)}

    def homes(self, shard: Cut) -> dict[str, int]:
        """Return nothing: the file is the client's."""
        return {}

    def deliver(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> list[Delivered]:
        """Return the shards as they are, or have Dask bring their rows; see `Files.deliver`."""
        if self.piece.path in seen:
            return list(shards)
        return [client.scatter(ArrayShard(*shard.open()), workers=[address], hash=False) for shard in shards]

    def close(self) -> None:
        """Remove the file; processes that have mapped it keep what they see."""
        self._file.close()
