"""Partitions: those of X with those of y and the weights, in one graph, so that what several are made of is made once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import Any

import numpy as np

from scaleml.data.sealed import by_value
from scaleml.data.unfused import Graph, Key, unfused


@dataclass(frozen=True)
class Partitions:
    """The partitions of X with those of y and the weights.

    Parameters
    ----------
    x, y : list
        Delayed partitions; those of y may be arrays that this process holds.
    weights : list or None
        The same for the weights.
    rows : tuple of int or None
        Rows of each partition; None if that is found only by computing them.
    row_nbytes : int or None
        Bytes of a row of dense X as Dask holds it, if known.
    columns, targets : tuple or None
        Names of the columns of X, and of a y of several, where they are dataframes: partitions may have them in another order.
    """

    x: Sequence[object]
    y: Sequence[object]
    weights: Sequence[object] | None
    rows: tuple[int, ...] | None
    row_nbytes: int | None
    columns: tuple[object, ...] | None = None
    targets: tuple[object, ...] | None = None

    @property
    def largest_nbytes(self) -> int | None:
        """Bytes of the largest partition of X, if they are known."""
        return None if self.rows is None or self.row_nbytes is None else max(self.rows) * self.row_nbytes

    @property
    def firsts(self) -> list[int | None]:
        """Number of the first row of each partition."""
        if self.rows is None:
            return [None] * len(self.x)
        return [int(end) - size for end, size in zip(np.cumsum(self.rows), self.rows, strict=True)]


@dataclass(frozen=True)
class Columns:
    """X, y and the weights of one table: each a Dask array or dataframe, or, for known ``rows``, arrays of this process.

    Parameters
    ----------
    parts : list
        X, y and, if there are any, the weights; those of this process as a list of arrays, one for each partition of X.
    rows : tuple of int or None
        Rows of each partition of X, if they are known.
    """

    parts: Sequence[Any]
    rows: tuple[int, ...] | None


def delayed_together(tables: Sequence[Columns]) -> list[list[Sequence[object]]]:
    """Return, for each table, the delayed partitions of its X, y and weights, as many of each.

    Dask optimizes them as one, for apart each would read a file anew, and merge other files. Where that leaves y in other partitions
    than X, as of files of its own, rows are paired by their position.
    """
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph

    lazy = [part for table in tables for part in table.parts if not isinstance(part, list)]
    graph, keys = merged(lazy)
    found = iter(keys)
    paired = []
    for table in tables:
        parts = [part if isinstance(part, list) else next(found) for part in table.parts]
        paired.append([parts[0], *(_paired(graph, parts[0], part, table.rows) for part in parts[1:])])
    name = f"scaleml-rows-{secrets.token_hex(8)}"
    layer = HighLevelGraph({name: graph}, {name: set()})
    return [
        [
            part if isinstance(part[0], np.ndarray) else [Delayed(key, layer, layer=name) for key in part]
            for part in parts
        ]
        for parts in paired
    ]


def merged(collections: Sequence[Any], *, merge_files: bool = True) -> tuple[Graph, list[list[Key]]]:
    """Return one graph of all these Dask arrays and dataframes, optimized, and the keys of the partitions of each.

    Unless ``merge_files`` dataframes have the partitions that they say, also where Dask would read several small files as one.
    """
    from dask import config
    from dask.base import collections_to_expr
    from dask.core import flatten

    graph: Graph = {}
    keys: list[list[Key]] = [[] for _ in collections]
    framed = [position for position, each in enumerate(collections) if hasattr(each, "expr")]
    if framed:
        with config.set({} if merge_files else {"optimization.tune.active": False}):
            whole = collections_to_expr([collections[position] for position in framed]).optimize()
        graph |= whole.__dask_graph__()
        for position, frame in zip(framed, whole.operands, strict=True):
            keys[position] = list(flatten(frame.__dask_keys__()))
    others = [position for position in range(len(collections)) if position not in framed]
    if others:
        arrays = [collections[position] for position in others]
        graph |= collections_to_expr(arrays).optimize().__dask_graph__()
        for position, array in zip(others, arrays, strict=True):
            keys[position] = list(flatten(array.__dask_keys__()))
    # Arrays made of dataframes were optimized when they were made, each apart.
    return (unfused(graph) if others else graph), keys


def _paired(graph: Graph, x: Sequence[Key], part: list[Any], rows: tuple[int, ...] | None) -> list[Any]:
    """Return keys of as many partitions as X has, of the same rows; what the graph lacks for them is added."""
    from dask.base import tokenize

    if len(part) == len(x):
        return part
    of = tokenize(list(x), part)
    whole = f"scaleml-whole-{of}"
    graph[whole] = (_joined, list(part))
    cut: list[Key] = []
    start: Any = 0
    for index, key in enumerate(x):
        size, end, own = ((f"scaleml-{what}-{of}", index) for what in ("size", "end", "cut"))
        stop: Any = None if index == len(x) - 1 else end if rows is None else start + rows[index]
        if stop == end:
            graph[size] = (_rows, key)
            graph[end] = (add, start, size)
        # The last one has all the rest: if X has not as many rows, that is said as of any partition.
        graph[own] = (_cut, whole, start, stop)
        cut.append(own)
        start = stop
    return cut


@by_value
def _joined(parts: Sequence[Any]) -> Any:
    if hasattr(parts[0], "iloc"):
        import pandas as pd

        return pd.concat(list(parts))
    return np.concatenate(list(parts))


@by_value
def _rows(partition: Any) -> int:
    return int(partition.shape[0])


@by_value
def _cut(whole: Any, start: int, stop: int | None) -> Any:
    return whole.iloc[start:stop] if hasattr(whole, "iloc") else whole[start:stop]
