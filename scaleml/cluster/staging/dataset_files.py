"""A map-style dataset on its way to ranks: pickled once, sent once to each worker that has a rank, read there by item numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, final

import numpy as np
from distributed import Client, Future

from scaleml.arrays import Array
from scaleml.cluster.staging.files import Cut, Delivered, Files
from scaleml.cluster.user_modules import carried_modules
from scaleml.data.dataset_items import SharedDataset
from scaleml.data.dataset_shard import DatasetShard
from scaleml.data.dataset_source import DatasetSource
from scaleml.data.map_dataset import MapDataset
from scaleml.data.sealed import seal


@final
class DatasetFiles(Files):
    """A dataset that ranks read; there are no files, but what it opens may have some.

    Parameters
    ----------
    data : MapDataset

    Raises
    ------
    TypeError
        Where it cannot be pickled.
    """

    def __init__(self, data: MapDataset) -> None:
        self._dataset = data.dataset
        self._there: dict[tuple[str, str], Future[SharedDataset]] = {}
        self._sealed: dict[frozenset[str], SharedDataset] = {}
        self._seal(frozenset())

    def _seal(self, carried: frozenset[str]) -> SharedDataset:
        if carried not in self._sealed:
            try:
                call = seal(_itself, self._dataset, carried=carried).call
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise TypeError(
                    f"the dataset {type(self._dataset).__name__} cannot be pickled, which it must be to reach the workers ({cause}): open "
                    "files and connections in __getitem__, when they are first needed, and not in __init__"
                ) from error
            self._sealed[carried] = SharedDataset(call)
        return self._sealed[carried]

    def refresh(self, client: Client) -> None:
        """Do nothing: what is lost is sent again."""

    def bring(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> None:
        """Send the dataset to a worker."""
        self._at(client, address)

    def witnesses(self) -> dict[str, tuple[str, bytes]]:
        """Return nothing: there are no files."""
        return {}

    def homes(self, shard: Cut) -> dict[str, int]:
        """Return nothing: any worker may read any item."""
        return {}

    def deliver(self, client: Client, shards: Sequence[Cut], address: str, seen: set[str]) -> list[Delivered]:
        """Return the shards with the dataset that is at the worker; see `Files.deliver`."""
        there: Any = self._at(client, address)  # Dask puts the dataset itself in its place
        return [replace(shard, dataset=there) for shard in shards if isinstance(shard, DatasetShard)]

    def _at(self, client: Client, address: str) -> Future[SharedDataset]:
        """Return the dataset at a worker, which it is sent to once."""
        key = client.id, address
        found = self._there.get(key)
        if found is None or found.status != "finished":
            shared = self._seal(carried_modules(client, [address], self._dataset))
            self._there[key] = found = client.scatter(shared, workers=[address], hash=False)
        return found

    def close(self) -> None:
        """Let go of what was sent."""
        self._there.clear()


def _itself(dataset: object) -> object:
    return dataset


@final
class PlacedItems:
    """Items to train on, or those held out, as `scaleml.cluster.staging.placed_data.PlacedRows` are rows of pieces.

    Parameters
    ----------
    source : DatasetSource
    order : (n,) int array
        The numbers of the items, in the order in which they are read.
    dtype : str
        The model's.
    """

    nonzeros: None = None

    def __init__(self, source: DatasetSource, order: Array, dtype: str) -> None:
        self.files = DatasetFiles(source.data)
        self.rows = len(order)
        self.nbytes = self.rows * source.row.itemsize
        self._order = np.asarray(order)
        self._form, weights = source.form(dtype), source.encode_weights(dtype)
        self._weights = None if weights is None else weights[order]

    def shards(self, count: int) -> list[DatasetShard]:
        """Return the items in so many nearly equal shards."""
        cuts = [self.rows * s // count for s in range(count + 1)]
        return [
            DatasetShard(
                None, self._order[low:high], self._form, None if self._weights is None else self._weights[low:high]
            )
            for low, high in pairwise(cuts)
        ]
