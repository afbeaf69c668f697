"""Placed data: the rows of one or several runs in files, cut into shards once a run, each rank's within its worker's reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.staging.dataset_files import PlacedItems
from scaleml.cluster.staging.files import Cut, Delivered, Files
from scaleml.cluster.staging.piece_folder import readable
from scaleml.data.piece import Run, stored_in_a_row
from scaleml.data.shard import Shard, cut_shards


@final
class PlacedRows:
    """Rows to train on, or those held out: runs of pieces in files.

    Parameters
    ----------
    files : Files
        Where the pieces lie.
    runs : sequence of Run
        The rows, in their order.
    seed : int or None
        Decides the order of the rows within shards; None leaves them as they are.
    """

    def __init__(self, files: Files, runs: Sequence[Run], seed: int | None = None) -> None:
        self.files = files
        self.rows = sum(run.rows for run in runs)
        self.nbytes = sum(run.nbytes for run in runs)
        self.nonzeros = stored_in_a_row(runs)
        self._runs, self._seed = list(runs), seed
        self._cuts: dict[int, list[Shard]] = {}

    def shards(self, count: int) -> list[Shard]:
        """Return the rows in so many nearly equal shards, which are cut once, for all ranks and whoever follows them."""
        if count not in self._cuts:
            self._cuts[count] = cut_shards(self._runs, count, self._seed)
        return self._cuts[count]


Placed = PlacedRows | PlacedItems
"""Rows to train on, or those held out, wherever they lie."""


@final
class PlacedData:
    """The data of one or several runs.

    Parameters
    ----------
    train : PlacedRows or PlacedItems
        What is trained on.
    held_out : PlacedRows or PlacedItems or None
        What is not.
    """

    def __init__(self, train: Placed, held_out: Placed | None = None) -> None:
        self.train = train
        self.held_out = held_out
        parts = [train] if held_out is None else [train, held_out]
        self._files: list[Files] = list(dict.fromkeys(part.files for part in parts))
        self._sees: dict[str, dict[str, bool]] = {}

    @property
    def nbytes(self) -> int:
        """About how many bytes all X are."""
        return self.train.nbytes + (self.held_out.nbytes if self.held_out is not None else 0)

    @property
    def irreparable(self) -> tuple[str, ...]:
        """What is to be said of rows that nobody could bring back, should their worker be lost."""
        return tuple(files.irreparable for files in self._files if files.irreparable)

    def nearest(self, workers: Sequence[str], ranks: int) -> list[str]:
        """Return the workers in another order: the first ``ranks`` of them each near the rows of that rank."""
        return nearest(workers, [self.train.files.homes(shard) for shard in self.train.shards(ranks)])

    def refresh(self, client: Client) -> None:
        """Have again, on workers that are there, what was lost with others."""
        for files in self._files:
            files.refresh(client)

    def bring(self, client: Client, addresses: Sequence[str], shards: int, owned: Sequence[Sequence[int]]) -> None:
        """Have everything where the ranks can read it, also what was lost since; the arguments are those of ``shards_for``.

        This takes as long as it takes: it comes before the ranks are sent, who have to enter by a deadline.
        """
        self.refresh(client)
        for address, seen, mine, rest in self._ranks(client, addresses, shards, owned):
            self.train.files.bring(client, mine, address, seen)
            if self.held_out is not None:
                self.held_out.files.bring(client, rest, address, seen)

    def shards_for(
        self, client: Client, addresses: Sequence[str], shards: int, owned: Sequence[Sequence[int]]
    ) -> list[tuple[list[Delivered], list[Delivered]]]:
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
        held_out = None if self.held_out is None else self.held_out.files
        return [
            (
                self.train.files.deliver(client, mine, address, seen),
                [] if held_out is None else held_out.deliver(client, rest, address, seen),
            )
            for address, seen, mine, rest in self._ranks(client, addresses, shards, owned)
        ]

    def _ranks(
        self, client: Client, addresses: Sequence[str], shards: int, owned: Sequence[Sequence[int]]
    ) -> Iterator[tuple[str, set[str], Sequence[Cut], Sequence[Cut]]]:
        """Yield, for each training rank, its worker, whose files that can read, its shards and its held-out one."""
        sees = self._seen(client, addresses)
        cut = self.train.shards(shards)
        held = [] if self.held_out is None else self.held_out.shards(len(addresses))
        for rank, (address, seen) in enumerate(zip(addresses, sees, strict=True)):
            yield address, seen, [cut[shard] for shard in owned[rank]], held[rank : rank + 1]

    def _seen(self, client: Client, addresses: Sequence[str]) -> list[set[str]]:
        """Return, for each rank, whose files its worker can read; each worker is asked once about each."""
        witnesses = {place: file for files in self._files for place, file in files.witnesses().items()}
        unknown = [
            address
            for address in dict.fromkeys(addresses)
            if not witnesses.keys() <= self._sees.setdefault(address, {}).keys()
        ]
        if unknown:
            try:
                answers = calls.on_workers(client, 30, readable, list(witnesses.values()), workers=unknown)
            except TimeoutError as error:
                raise StartFailed(f"{error}: its process may be stopped; start again") from error
            except OSError as error:
                raise StartFailed(
                    f"a worker of {', '.join(unknown)} has just been lost: {error}; start again"
                ) from error
            for address in unknown:
                self._sees[address] |= dict(zip(witnesses, answers[address], strict=True))
        return [{place for place, seen in self._sees[address].items() if seen} for address in addresses]

    def close(self) -> None:
        """Remove what was brought to the workers."""
        for files in self._files:
            files.close()


def nearest(workers: Sequence[str], homes: Sequence[Mapping[str, int]]) -> list[str]:
    """Return the workers in another order: first one for each rank, as near as can be to its rows.

    Parameters
    ----------
    workers : sequence of str
        At least one a rank.
    homes : sequence of dicts
        For each rank, how many of its rows lie on which worker.

    Examples
    --------
    >>> nearest(["a", "b", "c", "d"], [{"a": 5, "b": 20}, {"b": 19, "c": 1}, {}])
    ['b', 'c', 'a', 'd']
    """
    wishes = [(-rows, rank, worker) for rank, home in enumerate(homes) for worker, rows in home.items()]
    chosen: dict[int, str] = {}
    for _, rank, worker in sorted(wishes):
        if rank not in chosen and worker in workers and worker not in chosen.values():
            chosen[rank] = worker
    others = iter([worker for worker in workers if worker not in chosen.values()])
    return [*(chosen.get(rank) or next(others) for rank in range(len(homes))), *others]
