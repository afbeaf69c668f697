"""The order of rows as documented, in plain NumPy, and the run that trains on rows in that order without Dask."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from runtime import harness

MEGABYTE = 1 << 20


def pieces(sizes: Sequence[int], seed: int, fraction: float = 0.0) -> tuple[list[Any], list[Any]]:
    """Rows of each partition, shuffled: those to train on, and those held out."""
    train, held = [], []
    first = 0
    for index, size in enumerate(sizes):
        chance = np.random.default_rng([seed, 0x91ECE, index])
        rows = first + chance.permutation(size)
        count = int(size * fraction + chance.random()) if size else 0
        held.append(rows[:count])
        train.append(rows[count:])
        first += size
    return train, held


def order(sizes: Sequence[int], seed: int, shards: int, row_nbytes: int, fraction: float = 0.0) -> Any:
    """Row numbers in the order in which shards hold them, one shard after the other."""
    train, _ = pieces(sizes, seed, fraction)
    total = sum(map(len, train))
    block_rows = max(1, min(8 * MEGABYTE, max(MEGABYTE, 64 * MEGABYTE // shards)) // row_nbytes)
    owner = np.repeat(np.arange(len(train)), [len(rows) for rows in train])
    flat = np.concatenate(train)
    result = []
    for shard, (low, high) in enumerate(pairwise([total * s // shards for s in range(shards + 1)])):
        runs = [flat[low:high][owner[low:high] == piece] for piece in range(len(train))]
        runs = [run for run in runs if len(run)]
        count = max(1, -(-(high - low) // block_rows))
        for block in range(count):
            rows = np.concatenate(
                [
                    run[
                        int(Fraction(block * len(run), count) + phase) : int(
                            Fraction((block + 1) * len(run), count) + phase
                        )
                    ]
                    for run, phase in zip(runs, (Fraction(k, len(runs)) for k in range(len(runs))), strict=True)
                ]
            )
            result.append(rows[np.random.default_rng([seed, shard, 0xB10C, block]).permutation(len(rows))])
    return np.concatenate(result)


def params(
    monkeypatch: Any,
    model: Any,
    X: Any,
    y: Any,
    sizes: Sequence[int],
    *,
    row_nbytes: int,
    shards: int = 2,
    **settings: Any,
) -> Any:
    """Train on threads of this process on NumPy rows in that order."""
    seed = settings.get("seed", 0)
    rows = order(sizes, seed, shards, row_nbytes)
    monkeypatch.setattr(harness, "hold_out", lambda n, fraction, seed: (rows, None))
    nonzeros = X.nnz / X.shape[0] if hasattr(X, "nnz") else None  # by which ranks decide how they sum
    settings = {"epochs": 2, "batch_size": 32, "strategy": None, "nonzeros": nonzeros, **settings}
    return harness.on_threads(model, X, y, shards=shards, **settings).params
