"""Collectives in the background."""

import threading

import numpy as np
import pytest

from scaleml.comm import Aborted, Mismatch, inprocess


@pytest.mark.parametrize("size", [1, 2, 3])
def test_several_at_once(size, way):
    def rank(group):
        arrays = [np.full(n, group.rank + 1.0) for n in (1, 10, 50_000, 3)]
        handles = [group.allreduce_start(x) for x in arrays]
        rows = group.allgather_start(np.array([group.rank]))
        part = group.reduce_scatter_start(np.ones(size, "float32"))
        assert part.wait().tolist() == [size]
        assert part.done()
        assert rows.wait()[:, 0].tolist() == list(range(size))
        for handle, x in zip(handles, arrays, strict=True):
            handle.wait()
            handle.wait()
            assert (x == size * (size + 1) / 2).all()

    inprocess.run(size, rank, **way)


def test_a_blocking_collective_comes_after_all_that_was_started(way):
    def rank(group):
        x = np.ones(50_000)
        group.allreduce_start(x)
        group.allreduce(x)
        assert (x == 4).all()

    inprocess.run(2, rank, **way)


def test_messages_go_on_meanwhile(way):
    started = threading.Barrier(2)

    def rank(group):
        other = 1 - group.rank
        x = np.ones(50_000)
        if group.rank == 0:
            handle = group.allreduce_start(x)
            started.wait()
            assert group.recv(other).payload == b"first"
            group.send(b"second", other)
        else:
            started.wait()
            group.send(b"first", other)
            assert group.recv(other).payload == b"second"
            handle = group.allreduce_start(x)
        handle.wait()
        assert (x == 2).all()

    inprocess.run(2, rank, **way)


def test_an_error_comes_out_of_wait_and_stops_what_follows():
    def rank(group):
        first = group.allreduce_start(np.zeros(5 + group.rank))
        second = group.allreduce_start(np.zeros(5))
        for handle in (first, second):
            with pytest.raises(Mismatch):
                handle.wait()

    inprocess.run(2, rank)


def test_abort_ends_what_is_in_the_background():
    pair = inprocess.groups(2)
    handle = pair[0].allreduce_start(np.zeros(5))
    pair[0].abort("enough")
    with pytest.raises(Aborted, match="enough"):
        handle.wait()
    for group in pair:
        group.close()


def test_bytes_and_seconds_are_booked_when_waited_for():
    def rank(group):
        group.meter.reset()
        handle = group.allreduce_start(np.zeros(1000))
        assert group.meter.bytes_sent == 0
        handle.wait()
        sent = group.meter.bytes_sent
        assert 8000 < sent < 8200
        handle.wait()
        assert group.meter.bytes_sent == sent
        return group.meter.wait + group.meter.comm

    assert all(seconds > 0 for seconds in inprocess.run(2, rank))
