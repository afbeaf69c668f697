"""Fused tasks taken apart again: where two of Dask's fused tasks hold one and the same task inside, it is to run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

Key = Any
"""Of a task: a string or a tuple that starts with one."""
Graph = dict[Key, Any]


def unfused(graph: Graph) -> Graph:
    """Return the graph with every task that several fused ones hold as a task of its own.

    ``frame[["a"]].values`` and ``frame["b"].values`` are optimized apart, as soon as they are made: each holds the reading of the
    frame, under one key but inside a fused task, and reads it again; what differs each time it is read would then pair wrong rows.

    Examples
    --------
    >>> from dask._task_spec import Task, TaskRef
    >>> source = Task(("read", 0), list, "ab")
    >>> fused = {key: Task.fuse(source, Task((key, 0), len, TaskRef(("read", 0))), key=(key, 0)) for key in ("x", "y")}
    >>> sorted(unfused({(key, 0): task for key, task in fused.items()}))
    [('read', 0), ('x', 0), ('y', 0)]
    """
    counts = Counter(inner for key, task in graph.items() for inner in _held(task) if inner != key)
    shared = {key for key, count in counts.items() if count > 1 or (key in graph and not _is_alias(graph[key]))}
    if not shared:
        return graph
    found = dict(graph)  # what was an alias of a fused task becomes the task itself
    for key, task in graph.items():
        if _parts(task):
            _add(found, key, task, shared)
    return found


def _held(task: Any) -> Iterator[Key]:
    """Yield the keys of the tasks inside a fused one, to any depth."""
    for key, inner in _parts(task).items():
        yield key
        for deeper in _held(inner):
            if deeper != key:
                yield deeper


def _add(graph: Graph, key: Key, task: Any, shared: set[Key]) -> None:
    """Add a task to the graph, taken apart if it holds shared ones."""
    parts = _parts(task)
    if not shared.intersection(_held(task)) - {key}:
        graph[key] = task
        return
    from dask._task_spec import Alias

    for inner, part in parts.items():
        _add(graph, inner, part, shared)
    if key not in parts:
        graph[key] = Alias(key, task.args[1])


def _is_alias(task: Any) -> bool:
    return type(task).__name__ == "Alias"


def _parts(task: Any) -> dict[Key, Any]:
    """Return the tasks inside a fused one that stand in the graph under keys of their own; none for any other task.

    Those of Dask's blockwise operations are named without their block: the same name is another task in another block.
    """
    if getattr(getattr(task, "func", None), "__name__", "") != "_execute_subgraph":
        return {}
    inner, _, outer, *given = task.args
    renamed = any(getattr(ref, "key", None) != key for key, ref in zip(outer, given, strict=True))
    return {} if renamed or not all(isinstance(key, tuple) for key in inner) else dict(inner)
