"""Fused tasks taken apart again: where two of Dask's fused tasks hold one and the same task inside, it is to run once."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
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
    held: dict[Key, list[Any]] = {key: [task] for key, task in graph.items() if not _is_alias(task)}
    for key, task in graph.items():
        for inner, part in _held(task):
            if inner != key:
                held.setdefault(inner, []).append(part)
    several = {key: tasks for key, tasks in held.items() if len(tasks) > 1}
    unlike = {key for key, tasks in several.items() if not _are_one(key, tasks)}
    shared = several.keys() - unlike
    if not shared:
        return graph
    found = dict(graph)  # what was an alias of a fused task becomes the task itself
    for key, task in graph.items():
        if _parts(task):
            found |= _taken_apart(key, task, shared, unlike)
    return found


def _held(task: Any) -> Iterator[tuple[Key, Any]]:
    """Yield the tasks inside a fused one, to any depth, with their keys."""
    for key, part in _parts(task).items():
        yield key, part
        yield from (deeper for deeper in _held(part) if deeper[0] != key)


def _are_one(key: Key, tasks: list[Any]) -> bool:
    """Whether tasks of one key are the same: blocks have keys of their own, but a name alone may stand for one of each block."""
    return isinstance(key, tuple) or all(task is tasks[0] or bool(task == tasks[0]) for task in tasks[1:])


def _taken_apart(key: Key, task: Any, shared: AbstractSet[Key], unlike: AbstractSet[Key]) -> Graph:
    """Return what is in a fused task, if some of it is shared; else the task as it is."""
    parts = _parts(task)
    if unlike & parts.keys() or not any(inner in shared for inner, _ in _held(task) if inner != key):
        return {key: task}
    from dask._task_spec import Alias

    found: Graph = {}
    for inner, part in parts.items():
        if not (
            _is_alias(part) and part.target == inner
        ):  # as Dask leaves them of delayed parts: what is meant stands beside
            found |= _taken_apart(inner, part, shared, unlike)
    if key not in parts:
        found[key] = Alias(key, task.args[1])
    return found


def _is_alias(task: Any) -> bool:
    return type(task).__name__ == "Alias"


def _parts(task: Any) -> dict[Key, Any]:
    """Return the tasks inside a fused one by their keys; none for any other task, and where they see others under other keys."""
    if getattr(getattr(task, "func", None), "__name__", "") != "_execute_subgraph":
        return {}
    inner, _, outer, *given = task.args
    renamed = any(getattr(ref, "key", None) != key for key, ref in zip(outer, given, strict=True))
    return {} if renamed else dict(inner)
