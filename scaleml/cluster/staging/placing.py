"""Bringing the data to the workers: once, whatever it comes from, for any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.staging.parts import Part
from scaleml.cluster.staging.staging import readable


@dataclass
class PlacedData:
    """The data of one or several runs.

    Parameters
    ----------
    train : Part
        What is trained on.
    held_out : Part or None
        What is not.
    """

    train: Part
    held_out: Part | None
    _sees: dict[str, dict[str, bool]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """About how many bytes all X are."""
        return self.train.nbytes + (self.held_out.nbytes if self.held_out is not None else 0)

    def nearest(self, workers: Sequence[str], ranks: int) -> list[str]:
        """Return the workers in another order: the first ``ranks`` of them each near the rows of that rank."""
        homes = self.train.homes(ranks)
        wishes = [(-rows, rank, worker) for rank, home in enumerate(homes) for worker, rows in home.items()]
        chosen: dict[int, str] = {}
        for _, rank, worker in sorted(wishes):
            if rank not in chosen and worker in workers and worker not in chosen.values():
                chosen[rank] = worker
        others = iter([worker for worker in workers if worker not in chosen.values()])
        return [*(chosen.get(rank) or next(others) for rank in range(ranks)), *others]

    def bring(self, client: Client, addresses: Sequence[str], shards: int, owned: Sequence[Sequence[int]]) -> None:
        """Have everything where the ranks can read it, also what was lost since; the arguments are those of ``shards_for``.

        This takes as long as it takes: it comes before the ranks are sent, who have to enter by a deadline.
        """
        parts = [self.train, *([self.held_out] if self.held_out is not None else [])]
        for part in parts:
            part.refresh(client)
        sees = self._seen(client, addresses, parts)
        self.train.bring(client, sees, addresses, shards, owned)
        if self.held_out is not None:
            each = range(len(addresses))
            self.held_out.bring(client, sees, addresses, len(addresses), [[rank] for rank in each])

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
            Shards of files that the rank's worker can read, or futures of shards that Dask brings.
        """
        parts = [self.train, *([self.held_out] if self.held_out is not None else [])]
        sees = self._seen(client, addresses, parts)
        mine = self.train.shards(client, sees, addresses, shards, owned)
        if self.held_out is None:
            return [(own, []) for own in mine]
        ranks = len(addresses)
        held = self.held_out.shards(client, sees, addresses, ranks, [[rank] for rank in range(ranks)])
        return list(zip(mine, held, strict=True))

    def _seen(self, client: Client, addresses: Sequence[str], parts: Sequence[Part]) -> list[set[str]]:
        """Return, for each rank, whose files its worker can read; each worker is asked once about each."""
        files = {place: file for part in parts for place, file in part.files().items()}
        unknown = [
            address
            for address in dict.fromkeys(addresses)
            if not files.keys() <= self._sees.setdefault(address, {}).keys()
        ]
        if unknown:
            try:
                answers = calls.on_workers(client, 30, readable, list(files.values()), workers=unknown)
            except OSError as error:
                raise StartFailed(
                    f"a worker of {', '.join(unknown)} has just been lost: {error}; start again"
                ) from error
            for address in unknown:
                self._sees[address] |= dict(zip(files, answers[address], strict=True))
        return [{place for place, seen in self._sees[address].items() if seen} for address in addresses]

    def close(self) -> None:
        """Remove what was brought to the workers."""
        self.train.close()
        if self.held_out is not None:
            self.held_out.close()


def rows_of(count: int) -> Any:
    """Return the rows of data that is taken in its own order."""
    return np.arange(count, dtype=np.int64)
