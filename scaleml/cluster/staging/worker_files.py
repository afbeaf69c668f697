"""Files of pieces on workers: staged again where a worker was lost, copied to workers that cannot read them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from distributed import Client, Future

from scaleml.arrays import Array
from scaleml.cluster import calls
from scaleml.cluster.errors import RowsLost
from scaleml.cluster.host_facts import is_known
from scaleml.cluster.staging.files import Cut, Delivered, Files
from scaleml.cluster.staging.piece_folder import land, missing, pack, read, remove
from scaleml.cluster.staging.stage_pass import StagePass
from scaleml.cluster.submission import submit
from scaleml.data.partition import PieceSummary
from scaleml.data.piece import Arrays, Piece, Run
from scaleml.data.shard import Shard

_CALL = 30.0


class WorkerFiles(Files):
    """The pieces of a Dask collection, in folders of the workers that had its partitions.

    Shards and runs name a piece by the file that it was first staged in, wherever it lies now.

    Parameters
    ----------
    client : Client
        The cluster.
    stage : StagePass
        What makes the pieces, and makes them again. It runs at once.
    irreparable : str
        What to say of data that cannot be made again.

    Attributes
    ----------
    summaries : tuple of PieceSummary
        What it has found in each partition.

    Raises
    ------
    ValueError, TypeError
        For values that cannot be trained on, by row and column.
    """

    def __init__(self, client: Client, stage: StagePass, irreparable: str = "") -> None:
        self.irreparable = irreparable
        self._client = client
        self._stage = stage
        self._copies: dict[tuple[str, str], Piece] = {}
        self._is_closed = False
        try:
            found = stage.run(client, range(len(stage)))
        except BaseException:
            self.close()
            raise
        self.summaries = tuple(found[index] for index in range(len(stage)))
        self._now = {_piece(summary).path: summary for summary in self.summaries if summary.rows}
        self._indices = {_piece(summary).path: index for index, summary in found.items() if summary.rows}

    def refresh(self, client: Client) -> None:
        """Stage again what went with lost workers, from the collection's own lineage.

        Raises
        ------
        RowsLost
            Where that gives nothing, or other rows.
        """
        living = calls.identity(client, _CALL)
        paths: dict[str, list[str]] = {}
        for summary in self._now.values():
            if summary.worker in living:
                paths.setdefault(summary.worker, []).append(_piece(summary).path)
        answers = calls.ask_each(
            client, _CALL, lambda worker: calls.on_worker(client, worker, missing, paths[worker]), list(paths)
        )
        there: set[str] = set()
        for worker, mine in paths.items():
            gone = answers.get(worker)
            if isinstance(gone, list):
                there |= set(mine) - set(gone)
        lost = [first for first, summary in self._now.items() if _piece(summary).path not in there]
        if lost:
            found = self._stage.run(client, [self._indices[first] for first in lost])
            for index, summary in found.items():
                _refuse_others(self._stage.options.name, index, self.summaries[index], summary)
            self._now |= {first: found[self._indices[first]] for first in lost}
        self._copies = {
            (first, worker): copy
            for (first, worker), copy in self._copies.items()
            if worker in living and first not in lost
        }
        self._stage.hold(client, [*paths, *(worker for _, worker in self._copies)])

    def witnesses(self) -> dict[str, tuple[str, bytes]]:
        """Return one file of each worker."""
        end = self._stage.options.token.encode()
        return {summary.worker: (_piece(summary).path, end) for summary in self._now.values()}

    def homes(self, shard: Cut) -> dict[str, int]:
        """Return how many rows of a shard were staged by which worker."""
        homes: dict[str, int] = {}
        for run in runs_of(shard):
            worker = self._now[run.piece.path].worker
            homes[worker] = homes.get(worker, 0) + run.rows
        return homes

    def deliver(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> list[Delivered]:
        """Return the shards with each piece in a file that the worker sees; see `Files.deliver`."""
        wanted = dict.fromkeys(run.piece.path for shard in shards for run in runs_of(shard))
        places = {first: self._readable_by(client, first, address, seen) for first in wanted}
        coming = {first: place for first, place in places.items() if isinstance(place, Future)}
        brought = dict(zip(coming, client.gather(list(coming.values())), strict=True))
        if brought:
            self._copies |= {(first, address): piece for first, piece in brought.items()}
            self._stage.hold(self._client, [address])
        moved = {first: brought.get(first, place) for first, place in places.items()}
        moved = {first: piece for first, piece in moved.items() if piece.path != first}
        return [shard.at(moved) for shard in shards if isinstance(shard, Shard)]

    def bring(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> None:
        """Copy the pieces that the worker cannot read to it."""
        self.deliver(client, shards, address, seen)

    def fetch(self, runs: Sequence[Run]) -> list[Arrays]:
        """Return X, y and weights of each of these runs."""
        client = self._client
        homes = [self._now[run.piece.path].worker for run in runs]
        futures = [
            submit(client, read, run, workers=[home], allow_other_workers=True)
            for run, home in zip(runs, homes, strict=True)
        ]
        return list(client.gather(futures))

    def close(self) -> None:
        """Remove all files."""
        client = self._client
        self._stage.let_go()
        closed, self._is_closed = self._is_closed, True
        if closed or client.status != "running":
            return  # Dask removes the folders of its workers when they close
        with contextlib.suppress(Exception):
            token = self._stage.options.token
            workers = [worker for worker in calls.identity(client, _CALL) if is_known(client, worker)]
            calls.on_workers(client, _CALL, remove, token, workers=workers, on_error="ignore")

    def _readable_by(self, client: Client, first: str, address: str, seen: set[str]) -> Piece | Future[Piece]:
        """Return a piece in a file that the worker sees: its own, or one that Dask brings it."""
        summary = self._now[first]
        piece = _piece(summary)
        if summary.worker == address or summary.worker in seen:
            return piece
        if (first, address) in self._copies:
            return self._copies[first, address]
        # If a worker is lost meanwhile, its task fails elsewhere: better than to wait for a worker that does not come.
        token, home = self._stage.options.token, summary.worker
        content = submit(client, pack, piece, workers=[home], allow_other_workers=True)
        return submit(client, land, piece, token, content, workers=[address], allow_other_workers=True)


def runs_of(shard: Cut) -> tuple[Run, ...]:
    """Return the runs of a shard, which is of pieces."""
    assert isinstance(shard, Shard), "a dataset has no pieces"
    return shard.runs


def _refuse_others(name: str, index: int, first: PieceSummary, again: PieceSummary) -> None:
    """Raise RowsLost unless a partition has the same rows as the first time."""
    was, now = ((each.rows, each.held, each.digest) for each in (first, again))
    if was != now or not np.array_equal(_classes(first), _classes(again)):
        raise RowsLost(
            f"partition {index} of {name} was computed again, for its worker is gone, and now holds other rows: {again.rows} where "
            f"{first.rows} were, or other values; whoever went on with them would train another model. Have it computed from what does not "
            "change: seed what is random, write what changes to files first, or pass arrays of this process"
        )


def _classes(summary: PieceSummary) -> Array:
    return np.zeros(0) if summary.classes is None else summary.classes


def _piece(summary: PieceSummary) -> Piece:
    assert summary.piece is not None
    return summary.piece
