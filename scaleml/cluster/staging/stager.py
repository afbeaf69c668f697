"""The cluster's stager: rows into files of the workers that hold them, or of the client, whose host's workers map it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import final

from distributed import Client

from scaleml.arrays import Array
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import Workers
from scaleml.cluster.ready_workers import ready_workers
from scaleml.cluster.staging.client_file import ClientFile
from scaleml.cluster.staging.dataset_files import PlacedItems
from scaleml.cluster.staging.files import Files
from scaleml.cluster.staging.lineage import irreparable
from scaleml.cluster.staging.memory import check_partition
from scaleml.cluster.staging.placed_data import Placed, PlacedRows
from scaleml.cluster.staging.stage_pass import StagePass, begin, homes_of, lost_words
from scaleml.cluster.staging.worker_files import WorkerFiles
from scaleml.data.dataset_source import DatasetSource
from scaleml.data.piece import Run
from scaleml.data.stager import Pieces, Staging
from scaleml.data.tensor_source import LocalSource


@final
class ClusterStager:
    """A stager, as ``scaleml.data`` asks for one, on a cluster that is looked for only when it is needed.

    Parameters
    ----------
    client, workers
        As ``train`` takes them: the cluster, and where on it rows may lie.

    Attributes
    ----------
    placed : list of PlacedRows and PlacedItems
        The rows to train on, and those held out, if any.
    """

    def __init__(self, client: Client | None, workers: Workers) -> None:
        self._cluster = client, workers
        self._nonce = os.urandom(16)
        self._made: list[Files] = []
        self.placed: list[Placed] = []

    def compute(self, columns: Sequence[object]) -> Sequence[object]:
        """Return Dask collections as arrays of this process, computed together.

        Raises
        ------
        StartFailed
            Where Dask has lost what they are computed from.
        """
        found = ready_workers(*self._cluster).client
        try:
            return list(found.compute(list(columns), sync=True))
        except CancelledError as error:
            raise StartFailed(lost_words("the data", error)) from error

    def stage(self, tables: Sequence[Staging]) -> Sequence[WorkerFiles]:
        """Have one pass turn every partition of each X into a piece of a worker; see `scaleml.data.stager.Stager`.

        Raises
        ------
        StartFailed
            Where a worker's memory is too small for a partition, or it has not what the tasks need.
        """
        ready = ready_workers(*self._cluster)
        found, info, chosen = ready.client, ready.facts, ready.chosen
        somewhere = None if len(chosen) == len(info) else chosen
        passes = []
        for table in tables:
            check_partition(info, chosen, table.partitions.largest_nbytes, table.options.name, is_own=ready.is_own)
            homes = homes_of(table.X, table.partitions, info, list(info) if somewhere is None else chosen)
            passes.append(StagePass(table.partitions, table.options, somewhere, homes))
        begin(found, {each: range(len(each)) for each in passes})
        try:
            files = []
            for table, each in zip(tables, passes, strict=True):
                files.append(WorkerFiles(found, each, irreparable(found, table.X, table.options.name)))
                self._made.append(files[-1])
        finally:
            for each in passes:
                each.cancel(found)
        return files

    def write(self, source: LocalSource | DatasetSource, rows: Array, dtype: str, name: str) -> None:
        """Place rows of arrays in a file of the client, or items of a dataset where they are."""
        if isinstance(source, DatasetSource):
            items = PlacedItems(source, rows, dtype)
            self._made.append(items.files)
            self.placed.append(items)
            return
        file = ClientFile(source, rows, dtype, name, self._nonce)
        self._made.append(file)
        self.placed.append(PlacedRows(file, file.runs))

    def keep(self, pieces: Pieces, runs: Sequence[Run], seed: int | None = None) -> None:
        """Place runs of pieces that a stager of this cluster has staged."""
        assert isinstance(pieces, Files)
        self.placed.append(PlacedRows(pieces, runs, seed))

    def close(self) -> None:
        """Remove all files that it has made."""
        for files in self._made:
            files.close()
