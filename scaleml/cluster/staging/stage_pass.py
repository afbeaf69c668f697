"""The pass over a Dask collection: one task a partition writes it to a piece, where it is, while the client looks on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from dask.base import annotate, is_dask_collection
from dask.delayed import delayed
from distributed import Client, Future, KilledWorker, as_completed, futures_of, get_worker

from scaleml.cluster import calls
from scaleml.cluster.errors import RowsLost, StartFailed
from scaleml.cluster.staging.piece_folder import folder_of, is_closed, lease, lease_key
from scaleml.cluster.submission import submit
from scaleml.data.partition import PassOptions, PieceSummary, write_partition
from scaleml.data.partitions import Partitions
from scaleml.data.sealed import sealed
from scaleml.data.tensor_partition import write_tensor_partition


def homes_of(
    X: object, partitions: Partitions, info: Mapping[str, Mapping[str, object]], workers: Sequence[str]
) -> list[str] | None:
    """Return where to stage each partition so that each worker has one run of equal weight; None to leave it to Dask.

    Workers of one host read each other's files, and what is persisted is best staged where it is: both need no plan.
    """
    if len({info[address]["host"] for address in workers}) < 2 or futures_of(X):
        return None
    sizes = np.array(partitions.rows or [1] * len(partitions.x))
    middles = np.cumsum(sizes) - sizes / 2
    return [workers[int(middle * len(workers) // max(1, sizes.sum()))] for middle in middles]


@dataclass(frozen=True)
class Refused:
    """A partition that cannot be trained on: an answer, not an error, for Dask need not log what the user is told."""

    kind: str
    message: str

    def error(self) -> Exception:
        """Return the error for the user."""
        kinds: dict[str, type[Exception]] = {"ValueError": ValueError, "TypeError": TypeError}
        return kinds.get(self.kind, RuntimeError)(self.message)


def stage(
    x: object, y: object, w: object, options: PassOptions, index: int, first: int | None
) -> PieceSummary | Refused:
    """Turn a partition into a piece of this worker; runs as a Dask task."""
    worker = get_worker()
    folder = folder_of(worker, options.token)
    try:
        write = write_tensor_partition if options.any_shape else write_partition
        summary = write(options, index, first, folder, x, y, w)
    except (ValueError, TypeError) as error:
        return Refused(type(error).__name__, str(error))
    except OSError as error:
        return Refused("OSError", f"worker {worker.address}: {error}")
    if is_closed(options.token):  # whoever wanted it has gone meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    return dataclasses.replace(summary, worker=worker.address)


def begin(client: Client, passes: Mapping[StagePass, Sequence[int]]) -> None:
    """Submit the tasks of several passes at once: what their partitions are made of is then made once for all of them."""
    tasks = {each: each.tasks(client, indices) for each, indices in passes.items()}
    futures = iter(client.compute([task for some in tasks.values() for task in some]))
    for each, indices in passes.items():
        each.take([next(futures) for _ in tasks[each]], indices)


def lost_words(name: str, error: CancelledError) -> str:
    """Return what to say of a collection whose tasks Dask has cancelled."""
    reason = getattr(error, "reason", "")
    return (
        f"what {name} is computed from has been cancelled in Dask{f' ({reason})' if reason else ''}: somebody restarted the cluster or "
        "cancelled it, the client that persisted it is gone, or it was scattered to a worker that is gone; make the collection, or "
        "persist it, again; what is not scattered can be computed again"
    )


class StagePass:
    """Brings partitions into files of the workers that have them, and says there for how long they are wanted.

    Of each partition the client sees a few numbers and its classes, nothing else. X, y and weights are computed together.

    Parameters
    ----------
    partitions : Partitions
        What to stage.
    options : PassOptions
        How.
    workers : sequence of str or None
        Where, if not anywhere.
    homes : sequence of str or None
        On which of them each partition is staged, if they live; None leaves that to Dask, which goes where the data is.
    """

    def __init__(
        self,
        partitions: Partitions,
        options: PassOptions,
        workers: Sequence[str] | None = None,
        homes: Sequence[str] | None = None,
    ) -> None:
        self.options = options
        self._partitions = partitions
        self._workers = None if workers is None else list(workers)
        self._homes = homes
        self._attempts = 0
        self._begun: dict[Future[Any], int] = {}
        self._leases: dict[str, Future[Any]] = {}

    def __len__(self) -> int:
        """Return the number of partitions."""
        return len(self._partitions.x)

    def run(self, client: Client, indices: Sequence[int]) -> dict[int, PieceSummary]:
        """Stage some of the partitions, or wait for what was begun.

        Raises
        ------
        ValueError, TypeError
            For values that cannot be trained on, by row and column.
        """
        if not self._begun:
            begin(client, {self: indices})
        futures, self._begun = self._begun, {}
        found: dict[int, PieceSummary] = {}
        try:
            done = as_completed(list(futures), loop=client.loop, with_results=True)
            for future, summary in chain.from_iterable(done.batches()):
                if isinstance(summary, CancelledError):
                    raise RowsLost(lost_words(self.options.name, summary))
                if isinstance(summary, Refused):
                    raise summary.error()
                found[futures[future]] = summary
            found = self._as_known(client, found)
            self.hold(client, (summary.worker for summary in found.values() if summary.piece is not None))
        except KilledWorker as error:
            raise StartFailed(
                f"{error}: the workers' memory is too small for the partitions of {self.options.name}, which Dask computes one at a "
                "time in each of a worker's threads: make them smaller (rechunk, repartition), or give the workers more memory"
            ) from None
        except BaseException:
            client.cancel(list(futures))
            raise
        finally:
            for future in futures:
                future.release()
        return found

    @staticmethod
    def _as_known(client: Client, found: Mapping[int, PieceSummary]) -> dict[int, PieceSummary]:
        """Return summaries that name each worker as the scheduler does: one known by a host's name gives that itself."""
        known = calls.known_addresses(client, {summary.worker for summary in found.values()})
        return {
            index: dataclasses.replace(summary, worker=known[summary.worker]) if summary.worker in known else summary
            for index, summary in found.items()
        }

    def hold(self, client: Client, workers: Iterable[str]) -> None:
        """Say on these workers that their pieces are wanted."""
        token = self.options.token
        held = {worker for worker, future in self._leases.items() if future.status != "cancelled"}
        for worker in set(workers) - held:  # a client that has lost its connection, and is back, holds nothing
            self._leases[worker] = submit(
                client, lease, token, key=lease_key(token, worker), workers=[worker], allow_other_workers=False
            )

    def let_go(self) -> None:
        """Say that no piece is wanted any more."""
        self._leases.clear()

    def cancel(self, client: Client) -> None:
        """Give up what was begun and never waited for."""
        if self._begun:
            client.cancel(list(self._begun))
            self._begun = {}

    def take(self, futures: Sequence[Future[Any]], indices: Sequence[int]) -> None:
        """Have what was submitted waited for by the next call of `run`."""
        self._begun = dict(zip(futures, indices, strict=True))

    def tasks(self, client: Client, indices: Sequence[int]) -> list[object]:
        """Return a task for each of these partitions."""
        partitions, self._attempts = self._partitions, self._attempts + 1
        y = self._on_workers(client, [partitions.y[index] for index in indices])
        w: Sequence[object] = [None] * len(indices)
        if partitions.weights is not None:
            w = self._on_workers(client, [partitions.weights[index] for index in indices])
        firsts = partitions.firsts
        tasks: list[object] = []
        for i, index in enumerate(indices):
            with annotate(**self._place(index)):
                make = delayed(sealed(stage, self.options, index, firsts[index]), pure=False)
                key = f"scaleml-stage-{self.options.token}-{self._attempts}-{index}"
                tasks.append(make(partitions.x[index], y[i], w[i], dask_key_name=key))
        return tasks

    def _place(self, index: int) -> dict[str, object]:
        if self._workers is not None:  # the others may lack what it needs, and steal what they are allowed to run
            return {"workers": self._workers, "allow_other_workers": False}
        return {} if self._homes is None else {"workers": [self._homes[index]], "allow_other_workers": True}

    def _on_workers(self, client: Client, values: Sequence[object]) -> Sequence[object]:
        """Send what this process holds straight to the workers: not as part of the tasks, for these go by the scheduler."""
        first = values[0] if values else None
        if first is None or is_dask_collection(next(iter(first.values())) if isinstance(first, dict) else first):
            return values
        try:
            return list(client.scatter(values, workers=self._workers, hash=False, direct=True))
        except OSError:  # the workers cannot be reached from here
            return list(client.scatter(values, workers=self._workers, hash=False, direct=False))
