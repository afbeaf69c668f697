"""Dask collections on their way into files of the workers: one task a partition, while the client looks on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from dask.base import annotate
from dask.delayed import delayed
from distributed import Client, Future, KilledWorker, as_completed, futures_of

from scaleml.cluster import calls
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.staging.staging import Refused, land, lease, lease_key, pack, present, remove, stage
from scaleml.data.collections import Partitions, is_collection
from scaleml.data.pieces import Piece, Recipe

_CALL = 30.0


def homes_of(X: Any, partitions: Partitions, info: dict[str, Any], workers: Sequence[str]) -> list[str] | None:
    """Return where to stage each partition so that each worker has one run of equal weight; None to leave it to Dask.

    Workers of one host read each other's files, and what is persisted is best staged where it is: both need no plan.
    """
    if len({info[address]["host"] for address in workers}) < 2 or futures_of(X):
        return None
    sizes = np.array(partitions.rows or [1] * len(partitions.x))
    middles = np.cumsum(sizes) - sizes / 2
    return [workers[int(middle * len(workers) // max(1, sizes.sum()))] for middle in middles]


class Staged:
    """A collection whose partitions lie in files of the workers that had them.

    Of each partition the client sees a few numbers and its classes, nothing else.

    Parameters
    ----------
    client : Client
        The cluster.
    partitions : Partitions
        What to stage.
    recipe : Recipe
        How.
    workers : sequence of str or None
        Where, if not anywhere.
    homes : sequence of str or None
        On which of them each partition is staged, if they live; None leaves that to Dask, which goes where the data is.

    Raises
    ------
    ValueError, TypeError
        For values that cannot be trained on, by row and column.
    """

    def __init__(
        self,
        client: Client,
        partitions: Partitions,
        recipe: Recipe,
        workers: Sequence[str] | None,
        homes: Sequence[str] | None = None,
    ) -> None:
        self.recipe = recipe
        self._homes = homes
        self._partitions = partitions
        self._client = client
        self._workers = None if workers is None else list(workers)
        self._attempts = 0
        self._copies: dict[tuple[int, str], Piece] = {}
        self._leases: dict[str, Future[Any]] = {}
        self._is_closed = False
        self.pieces: list[Piece] = []
        try:
            found = self._stage(client, range(len(partitions.x)))
            self.pieces = [found[index] for index in range(len(found))]
            self._check()
        except BaseException:
            self.close()
            raise

    def refresh(self, client: Client) -> None:
        """Stage again what went with lost workers, from the collection's own lineage."""
        living = calls.identity(client, _CALL)
        paths: dict[str, list[str]] = {}
        for piece in self.pieces:
            if piece.table is not None and piece.worker in living:
                paths.setdefault(piece.worker, []).append(piece.table.path)
        answers = (
            calls.on_workers(client, _CALL, present, paths, workers=list(paths), on_error="return") if paths else {}
        )
        there = {
            path
            for worker, mine in paths.items()
            if isinstance(missing_there := answers.get(worker), list)
            for path in set(mine) - set(missing_there)
        }
        missing = [
            i for i, piece in enumerate(self.pieces) if piece.table is not None and piece.table.path not in there
        ]
        if missing:
            for index, piece in self._stage(client, missing).items():
                self.pieces[index] = piece
        self._copies = {
            key: copy for key, copy in self._copies.items() if copy.worker in living and key[0] not in missing
        }

    def readable_by(self, client: Client, index: int, address: str, seen: set[str]) -> Piece | Future[Any]:
        """Return piece ``index`` in a file that the worker sees: its own, or one that Dask brings it."""
        piece = self.pieces[index]
        if piece.table is None or piece.worker == address or piece.worker in seen:
            return piece
        if (index, address) in self._copies:
            return self._copies[index, address]
        # If a worker is lost meanwhile, its task fails elsewhere: better than to wait for a worker that does not come.
        settings = {"allow_other_workers": True, "pure": False}
        content = client.submit(pack, piece, workers=[piece.worker], **settings)
        return client.submit(land, piece, self.recipe.token, content, workers=[address], **settings)

    def keep_copies(self, copies: dict[tuple[int, str], Piece]) -> None:
        """Remember pieces that were brought to other workers."""
        self._copies |= copies
        self._hold(self._client, copies.values())

    def close(self) -> None:
        """Remove all files."""
        client = self._client
        self._leases.clear()
        closed, self._is_closed = self._is_closed, True
        if closed or client.status != "running":
            return  # Dask removes the folders of its workers when they close
        with contextlib.suppress(Exception):
            calls.on_workers(
                client, _CALL, remove, self.recipe.token, workers=list(calls.identity(client, _CALL)), on_error="ignore"
            )

    def _stage(self, client: Client, indices: Sequence[int]) -> dict[int, Piece]:
        futures = self._submit(client, indices)
        found: dict[int, Piece] = {}
        try:
            done = as_completed(list(futures), loop=client.loop, with_results=True)
            for future, piece in chain.from_iterable(done.batches()):
                if isinstance(piece, Refused):
                    raise piece.error()
                found[futures[future]] = piece
            self._hold(client, found.values())
        except KilledWorker as error:
            raise StartFailed(
                f"{error}: the workers' memory is too small for the partitions of {self.recipe.name}, which Dask computes one at a "
                "time in each of a worker's threads: make them smaller (rechunk, repartition), or give the workers more memory"
            ) from None
        except BaseException:
            client.cancel(list(futures))
            raise
        finally:
            for future in futures:
                future.release()
        return found

    def _hold(self, client: Client, pieces: Iterable[Piece]) -> None:
        """Say on each worker that its pieces are wanted."""
        for worker in {piece.worker for piece in pieces if piece.table is not None} - self._leases.keys():
            token = self.recipe.token
            self._leases[worker] = client.submit(
                lease, token, key=lease_key(token, worker), workers=[worker], allow_other_workers=True
            )

    def _submit(self, client: Client, indices: Sequence[int]) -> dict[Future[Any], int]:
        partitions, self._attempts = self._partitions, self._attempts + 1
        y = self._on_workers(client, [partitions.y[index] for index in indices])
        w = (
            [None] * len(indices)
            if partitions.weights is None
            else self._on_workers(client, [partitions.weights[index] for index in indices])
        )
        make = delayed(stage, pure=False)
        firsts = partitions.firsts
        tasks = []
        for i, index in enumerate(indices):
            with annotate(**self._place(index)):
                arguments = (self.recipe, index, firsts[index], partitions.x[index], y[i], w[i])
                key = f"scaleml-stage-{self.recipe.token}-{self._attempts}-{index}"
                tasks.append(make(*arguments, dask_key_name=key))
        return dict(zip(client.compute(tasks), indices, strict=True))

    def _place(self, index: int) -> dict[str, Any]:
        chosen = self._workers if self._homes is None else [self._homes[index]]
        return {} if chosen is None else {"workers": chosen, "allow_other_workers": True}

    def _on_workers(self, client: Client, values: list[Any]) -> list[Any]:
        """Send what this process holds straight to the workers: not as part of the tasks, for these go by the scheduler."""
        if not values or is_collection(values[0]):
            return values
        try:
            return list(client.scatter(values, workers=self._workers, hash=False, direct=True))
        except OSError:  # the workers cannot be reached from here
            return list(client.scatter(values, workers=self._workers, hash=False, direct=False))

    def _check(self) -> None:
        full = [piece for piece in self.pieces if piece.rows]
        name = self.recipe.name
        if not full:
            raise ValueError(f"{name} has no rows in any of its {len(self.pieces)} partitions: at least one is needed")
        widths = sorted({piece.features for piece in full})
        if len(widths) > 1:
            raise ValueError(f"the partitions of {name} have {widths} columns: all must have the same")
        if len({piece.sparse for piece in full}) > 1:
            raise ValueError(
                f"some partitions of {name} are CSR and some dense: all must be of one kind; use tocsr or toarray"
            )
        targets = sorted({piece.targets for piece in full})
        if len(targets) > 1:
            raise ValueError(f"the partitions of y have {targets} columns: all must have the same")
        if not any(piece.mass.any() for piece in full):
            raise ValueError("sample_weight is 0 everywhere: at least one row must count")
