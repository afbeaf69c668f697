"""The fingerprint of a rank's rows: by which whoever goes on with a run knows that the data are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np

from scaleml import arrays
from scaleml.data.batches import Batches, OpenShard
from scaleml.data.piece import Arrays
from scaleml.data.stream import Stream

__all__ = ["OTHER_ROWS", "fingerprints", "refuse_other_rows"]

_ROWS: Final = 16
"""Of each shard, the first: a shard's rows are in the order of the seed, so they come from anywhere in the data."""

OTHER_ROWS: Final = "are not those that the checkpoint's run was trained on"
"""By which an error, in words, is known to have come of this."""


def fingerprints(batches: Batches) -> dict[str, str]:
    """Return a digest of the first rows of each shard of a rank, with targets and weights, by the shard's number.

    Items of a dataset are left out: they may be drawn anew each time.

    Examples
    --------
    >>> from scaleml.data.batches import Schedule
    >>> x, y = np.arange(6.0).reshape(3, 2), np.ones(3)
    >>> found = fingerprints(Batches(Schedule([3]), [0], [(x, y, None)]))
    >>> found == fingerprints(Batches(Schedule([3]), [0], [(x + 1, y, None)]))
    False
    """
    sizes = batches.schedule.sizes
    found = {}
    for number, shard in zip(batches.owned, batches.shards, strict=True):
        if not (isinstance(shard, Stream) and not shard.lies_in_files):
            found[str(number)] = _digest(_first(shard, min(_ROWS, sizes[number])))
    return found


def refuse_other_rows(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raise ValueError where rows are not those of which the fingerprints were taken."""
    other = [number for number, digest in found.items() if expected.get(number, digest) != digest]
    if other:
        raise ValueError(
            f"the rows of shard{'s' * (len(other) > 1)} {', '.join(other)} {OTHER_ROWS}: "
            "resume with the same X, y and sample_weight, their rows in the same order"
        )


def _first(shard: OpenShard, rows: int) -> Arrays:
    if not isinstance(shard, tuple):
        return shard.take(0, rows)
    x, y, weights = shard
    return arrays.rows(x, 0, rows), y[:rows], None if weights is None else weights[:rows]


def _digest(rows: Arrays) -> str:
    x, y, weights = rows
    parts = [x.data, x.indices, np.asarray(x.indptr) - x.indptr[0]] if arrays.is_sparse(x) else [x]
    digest = hashlib.sha256()
    for part in [*parts, y, *([] if weights is None else [weights])]:
        whole = np.ascontiguousarray(part)
        digest.update(f"{whole.dtype.str} {whole.shape}".encode())
        digest.update(whole.tobytes())
    return digest.hexdigest()[:16]
