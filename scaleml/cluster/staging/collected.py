"""Staged collections as parts of a run's data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed import Client, Future

from scaleml.cluster.staging.parts import Part
from scaleml.cluster.staging.staged import Staged
from scaleml.data.pieces import cut_pieces


class StagedPart(Part):
    """The rows of a staged collection that are trained on, or those that are held out.

    Parameters
    ----------
    staged : Staged
        The collection.
    codings : sequence of (codes, factors)
        For each piece, what its own labels stand for; see `scaleml.data.reading.Segment`.
    held_out : bool
        Which of its rows.
    ordered : bool
        Whether the order of the rows matters, so that they are shuffled across pieces.
    columns : int array, optional
        Of CSR rows, which columns count.
    """

    def __init__(
        self, staged: Staged, codings: Sequence[Any], held_out: bool, ordered: bool, columns: Any = None
    ) -> None:
        self._staged = staged
        self._codings = list(codings)
        self._held_out = held_out
        self._ordered = ordered
        self._columns = columns
        full = [piece for piece in staged.pieces if piece.table is not None]
        counts = [piece.held if held_out else piece.rows - piece.held for piece in full]
        self.rows = sum(counts)
        self.nbytes = sum(
            count * piece.table.row_nbytes for count, piece in zip(counts, full, strict=True) if piece.table is not None
        )

    def refresh(self, client: Client) -> None:
        """Stage again what went with lost workers."""
        self._staged.refresh(client)

    def bring(self, *where: Any) -> None:
        """Copy the pieces that some rank cannot read to its worker."""
        self.shards(*where)

    def files(self) -> dict[str, tuple[str, bytes]]:
        """Return one file of each worker."""
        return {
            piece.worker: (piece.table.path, self._staged.recipe.token.encode())
            for piece in self._staged.pieces
            if piece.table is not None
        }

    def homes(self, ranks: int) -> list[dict[str, int]]:
        """Return how many rows of each run were staged by which worker."""
        workers = {piece.table.path: piece.worker for piece in self._staged.pieces if piece.table is not None}
        homes: list[dict[str, int]] = [{} for _ in range(ranks)]
        for home, shard in zip(homes, self._cut(self._staged.pieces, ranks), strict=True):
            for segment in shard.segments:
                worker = workers[segment.table.path]
                home[worker] = home.get(worker, 0) + segment.rows
        return homes

    def shards(
        self,
        client: Client,
        sees: Sequence[set[str]],
        addresses: Sequence[str],
        count: int,
        owned: Sequence[Sequence[int]],
    ) -> list[list[Any]]:
        """Return shards of pieces, each where its rank's worker can read it."""
        result = []
        for seen, address, mine in zip(sees, addresses, owned, strict=True):
            cuts = self._cut(self._staged.pieces, count)
            needed = {s.table.path for i in mine for s in cuts[i].segments}
            places = [
                self._staged.readable_by(client, index, address, seen)
                if piece.table is not None and piece.table.path in needed
                else piece
                for index, piece in enumerate(self._staged.pieces)
            ]
            brought = {i: place for i, place in enumerate(places) if isinstance(place, Future)}
            pieces = dict(zip(brought, client.gather(list(brought.values())), strict=True))
            self._staged.keep_copies({(index, address): piece for index, piece in pieces.items()})
            local = [pieces.get(index, place) for index, place in enumerate(places)]
            cuts = self._cut(local, count) if brought or local != self._staged.pieces else cuts
            result.append([cuts[i] for i in mine])
        return result

    def _cut(self, pieces: Sequence[Any], count: int) -> list[Any]:
        seed = self._staged.recipe.seed
        return cut_pieces(pieces, self._codings, count, seed, self._held_out, self._ordered, self._columns)

    def close(self) -> None:
        """Remove the files."""
        self._staged.close()
