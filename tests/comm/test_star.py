"""One rank that hears many: as few frames as that takes, and still everybody knows whom all have waited for."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from scaleml.comm import Aborted, Mismatch, PeerLost, inprocess
from scaleml.comm.transport import star
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import HEADER

SIZE, LATE = 7, 3


def test_payloads_are_joined_and_parted():
    for parts in ([], [b""], [b"a", b"", b"bcd"]):
        assert star.split(star.join(parts)) == parts
        assert star.split(memoryview(star.join(parts))) == parts


def test_it_sums_in_the_order_of_the_ranks(monkeypatch):
    data = np.random.default_rng(0).normal(size=(SIZE, 1001)).astype(np.float32)  # another order would have other bits

    def rank(group):
        x = data[group.rank].copy()
        group.allreduce(x)
        return x

    through_one = inprocess.run(SIZE, rank)
    monkeypatch.setattr(star, "STAR_RANKS", SIZE + 1)
    directly = inprocess.run(SIZE, rank)
    for x in through_one:
        np.testing.assert_array_equal(x, directly[0])


def test_frames_grow_with_the_ranks_and_not_with_their_square():
    def rank(group):
        group.barrier()
        small = np.zeros(10, np.float32)
        before = group.meter.bytes_sent
        group.barrier()
        at_barrier = group.meter.bytes_sent - before
        group.allreduce(small)
        return at_barrier, group.meter.bytes_sent - before - at_barrier

    barriers, sums = zip(*inprocess.run(SIZE, rank), strict=True)
    assert sum(barriers) == 2 * (SIZE - 1) * HEADER
    assert sum(sums) == 2 * (SIZE - 1) * (HEADER + 40)


def test_all_know_who_was_late(monkeypatch):
    alone = threading.Event()  # the root has heard all others
    await_header = Channel.await_header

    def noting(channel, peer, key):
        if peer == LATE:
            alone.set()
        return await_header(channel, peer, key)

    def rank(group):
        group.barrier()
        group.meter.reset()
        if group.rank == 0:
            monkeypatch.setattr(Channel, "await_header", noting)
        if group.rank == LATE:
            assert alone.wait(60)
            threading.Event().wait(0.05)
        group.barrier()
        return list(group.meter.waited)

    waited = inprocess.run(SIZE, rank)
    assert waited[0][LATE] > 0
    for other in set(range(SIZE)) - {LATE}:
        assert sum(waited[other]) == waited[other][LATE], f"rank {other} blames another one"


def test_who_leaves_ends_the_collective_of_all():
    def rank(group):
        group.barrier()
        if group.rank == LATE:
            group.abort("it has had enough")
        with pytest.raises((PeerLost, Aborted)) as error:
            group.allreduce(np.zeros(10))
        group.close()  # as a rank does that fails
        return error.value.peer

    peers = inprocess.run(SIZE, rank)
    assert peers[0] == LATE
    assert {peer for other, peer in enumerate(peers) if other not in (0, LATE)} == {0}


def test_who_is_in_another_collective_is_named():
    def rank(group):
        with pytest.raises((Mismatch, PeerLost)) as error:
            group.allreduce(np.zeros(11 if group.rank == LATE else 10))
        group.close()
        return error.value

    errors = inprocess.run(SIZE, rank)
    assert isinstance(errors[0], Mismatch)
    assert errors[0].peer == LATE
