"""Frames whose header is whole and says what is not so: refused, whatever was awaited, and before memory is taken for it."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scaleml.comm import CommError, CorruptFrame, inprocess
from scaleml.comm.transport import star
from scaleml.comm.transport.frame import DOORBELL, RESULT, decode, encode, numbered

SMALL, LARGE = 10, 40_000
GIGABYTES = 6 << 30

# What a header says, by its place among the arguments of `encode`, instead of what is so.
KIND, OP, CODEC, DTYPE, FLAGS, BLOCK, TAG, GROUP, SEQUENCE, LENGTH = 0, 1, 2, 3, 4, 5, 6, 9, 10, 12
LIES: dict[str, tuple[int, Callable[[int], int]]] = {
    "another kind": (KIND, lambda kind: 9),
    "another operation": (OP, lambda op: op + 1),
    "another codec": (CODEC, lambda codec: codec + 1),
    "another dtype": (DTYPE, lambda dtype: 77),
    "a result": (FLAGS, lambda flags: flags ^ RESULT),
    "a doorbell": (FLAGS, lambda flags: flags ^ DOORBELL),
    "the next block": (BLOCK, lambda block: block + 1),
    "a block far away": (BLOCK, lambda block: 1 << 31),
    "other items": (TAG, lambda tag: tag + 1),
    "another group": (GROUP, lambda group: group + 1),
    "another number": (SEQUENCE, lambda sequence: sequence + 1),
    "shorter": (LENGTH, lambda length: max(0, length - 8)),
    "gigabytes": (LENGTH, lambda length: GIGABYTES),
    "exabytes": (LENGTH, lambda length: 1 << 62),
}
OF_MANY = ("another kind", "a result", "a block far away", "shorter", "exabytes")
"""What is tried where many ranks talk."""
FREE = {"the next block", "a block far away"}
"""What means nothing, where there are no blocks."""
FREE_IN_MESSAGES = {*FREE, "another operation", "another codec", "another number"}
"""... and in messages, where the callers say what it means."""


def allreduce(n: int, topology: str = "direct") -> Callable[[Any], bool]:
    def way(group: Any) -> bool:
        x = np.full(n, group.rank + 1.0)
        group.allreduce(x, topology)
        return bool((x == sum(range(1, group.size + 1))).all())

    return way


def reduced(group: Any) -> bool:
    x = np.full(LARGE, group.rank + 1.0)
    group.reduce(x, 0)
    return group.rank > 0 or bool((x == 3).all())


def broadcast(group: Any) -> bool:
    x = np.full(LARGE, group.rank + 1.0)
    group.broadcast(x, 1)
    return bool((x == 2).all())


def gathered(group: Any) -> bool:
    return group.allgather_bytes(b"%d" % group.rank * 20) == [b"%d" % rank * 20 for rank in range(group.size)]


def exchanged(group: Any) -> bool:
    places = [np.zeros(8, np.uint8) for _ in range(group.size)]
    group.exchange([np.full(8, group.rank + 1, np.uint8)] * group.size, places, 8)
    return all((place == rank + 1).all() for rank, place in enumerate(places) if rank != group.rank)


def message(n: int, view: bool = False) -> Callable[[Any], bool]:
    def way(group: Any) -> bool:
        x = group.buffer(n, np.float64)  # whose doorbell is rung, where there is shared memory
        x[:] = group.rank
        if group.rank == 1:
            group.send(x, 0, tag=5)
            group.recv(0, tag=6)
            return True
        found = group.recv(1, tag=5, view=view)
        group.send(b"seen", 1, tag=6)
        return isinstance(found.payload, np.ndarray) and len(found.payload) == n and bool((found.payload == 1).all())

    return way


WAYS: dict[str, tuple[Callable[[Any], bool], int, bool]] = {
    "small allreduce": (allreduce(SMALL), 2, True),
    "shared allreduce": (allreduce(LARGE), 2, True),
    "streamed allreduce": (allreduce(LARGE), 2, False),
    "ring allreduce": (allreduce(LARGE, "ring"), 2, False),
    "star allreduce": (allreduce(SMALL), star.STAR_RANKS, True),
    "shared star allreduce": (allreduce(LARGE), star.STAR_RANKS, True),
    "streamed reduce": (reduced, 2, False),
    "broadcast": (broadcast, 2, True),
    "bytes": (gathered, 2, False),
    "star bytes": (gathered, star.STAR_RANKS, False),
    "exchange": (exchanged, 2, False),
    "short message": (message(SMALL), 2, False),
    "doorbell message": (message(LARGE, view=True), 2, True),
    "long message": (message(LARGE), 2, False),
}


def lie(group: Any, at: int, of: Callable[[int], int]) -> None:
    """Have the header of a rank's next frame say something else."""
    channel = group.mesh.channel
    header = channel.header

    def once(*args: Any, **options: Any) -> bytes:
        del channel.header
        fields = list(decode(numbered(header(*args, **options), 0))[1:-2])
        fields[at] = of(fields[at])
        return encode(*fields)

    channel.header = once


def told(way: str, what: str) -> list[BaseException]:
    """Run a way of talking in which rank 1 (in a star, 0) lies; return the errors of the ranks."""
    call, size, shared = WAYS[way]
    liar = 0 if size > 2 else 1
    groups = inprocess.groups(size, shared_memory=shared, timeout=0.1)
    errors: list[BaseException] = []

    def rank(group: Any) -> None:
        try:
            if group.rank == liar:
                lie_when_ready(group)
            assert call(group), f"rank {group.rank} has something else than was sent"
        except (CommError, AssertionError) as error:
            errors.append(error)
        finally:
            group.close()

    def lie_when_ready(group: Any) -> None:
        if "message" in way:  # after the buffer, of which ranks talk, too
            buffer = group.buffer
            group.buffer = lambda *args: (buffer(*args), lie(group, *LIES[what]))[0]
        else:
            lie(group, *LIES[what])

    threads = [threading.Thread(target=rank, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_so_is_refused(way: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unnoticed = []
    for what in OF_MANY if way.startswith(("star", "shared star")) else LIES:
        if (way, what) == ("doorbell message", "a doorbell"):
            continue  # a message of that content
        errors = told(way, what)
        assert all(isinstance(error, CommError) for error in errors), (what, errors)
        if not errors:
            unnoticed.append(what)
    assert set(unnoticed) <= (FREE_IN_MESSAGES if "message" in way else FREE)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "memory for what was announced"


def test_a_frame_of_no_kind_and_one_that_is_too_long_are_named() -> None:
    for what, words in {"another kind": "no frame of kind 9", "exabytes": "this host has memory for"}.items():
        errors = told("bytes" if what == "exabytes" else "small allreduce", what)
        assert any(isinstance(error, CorruptFrame) and words in str(error) for error in errors), errors
