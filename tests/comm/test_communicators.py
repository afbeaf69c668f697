"""The table of tests for every communicator, collectives: over Unix sockets and shared memory, TCP, TLS, and in simulated time."""

import numpy as np
import pytest

from scaleml.comm import Mismatch
from scaleml.comm.collectives import TOPOLOGIES
from scaleml.comm.collectives.table import ALGORITHMS
from vectors import assert_same, total, vectors

LENGTHS = (0, 1, 2, 3, 7, 1000, 1001, 100_003, 300_001)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])  # from 6 on, one speaks for all
def test_collectives_agree_with_numpy(size, run):
    def rank(group):
        for n in LENGTHS:
            for dtype in ("float32", "float64", "int64") if group.size < 5 else ("float32",):
                check(group, n, dtype)
        group.barrier()

    def check(group, n, dtype):
        data = vectors(group.size, n, dtype)
        expected = total(data)
        for x in (np.empty(n, dtype), group.buffer(n, dtype)):
            x[:] = data[group.rank]
            group.allreduce(x)
            assert_same(x, expected)
            x[:] = data[group.rank]
            part = group.reduce_scatter(x)
            start, stop = group.part(group.rank, n)
            assert_same(part, expected[start:stop])
            assert np.shares_memory(part, x) or not part.size
            x[:] = data[group.rank]
            assert_same(group.allgather(x), data)
            root = n % group.size
            group.broadcast(x, root)
            assert_same(x, data[root])
            x[:] = data[group.rank]
            group.reduce(x, root)
            if group.rank == root:
                assert_same(x, expected)
        mine = bytes([group.rank]) * (group.rank * n)
        assert group.allgather_bytes(mine) == [bytes([r]) * (r * n) for r in range(group.size)]

    run(size, rank)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_sums_the_same_on_all_ranks(topology, run):
    def rank(group):
        for n in (0, 7, 1001, 100_003):
            data = vectors(group.size, n, "int64")
            x = data[group.rank].copy()
            group.allreduce(x, topology=topology)
            assert_same(x, np.sum(data, axis=0))
            x = data[group.rank].copy()
            group.allreduce_start(x, topology=topology).wait()
            assert_same(x, np.sum(data, axis=0))
            if topology in ALGORITHMS:
                x = data[group.rank].copy()
                ALGORITHMS[topology](group, x)
                assert_same(x, np.sum(data, axis=0))
        group.barrier()

    run(5, rank)


def test_blocks_go_round(run):
    """Each rank gives three blocks to the right; what comes from the left is added once, then replaces."""

    def rank(group):
        right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
        for n in (0, 3, 50_000):
            out = [np.full(n + index, 10 * group.rank + index, "int32") for index in range(3)]
            places = [np.full(n + index, 1000, "int32") for index in range(3)]
            group.send_receive(out, right, places, left, added=1)
            for index, place in enumerate(places):
                assert (place == 10 * left + index + 1000 * (index == 0)).all()
        x = np.full(70_000, float(group.rank))
        y, z = np.full((2, x.size), -1.0)
        group.send_receive([x, y], right, [y, z], left, ahead=1)  # what came is handed on
        assert (y == left).all()
        assert (z == (group.rank - 2) % group.size).all()

    run(4, rank)


def test_a_pair_may_talk_while_others_do_not(run):
    def rank(group):
        x = np.full(9, group.rank)
        if group.rank < 2:
            group.send_receive([x], 1 - group.rank, [y := np.zeros_like(x)], 1 - group.rank)
            assert (y == 1 - group.rank).all()
        group.allreduce(x)
        assert (x == 3).all()

    run(3, rank)


def test_blocks_of_other_lengths_are_told(run):
    def rank(group):
        x = np.zeros(5 + group.rank)
        group.send_receive([x], 1 - group.rank, [np.zeros(5 + group.rank)], 1 - group.rank)

    with pytest.raises(Mismatch, match=r"expected \d+ bytes"):
        run(2, rank)


def test_a_subset_is_made_without_talk_and_once(run):
    def rank(group):
        if group.rank == 2:
            return
        pair = group.subset([3, 0] if group.rank in (0, 3) else [1, 4])
        assert pair.ranks == ((3, 0) if group.rank in (0, 3) else (1, 4))
        assert pair is group.subset([3, 0] if group.rank in (0, 3) else [1, 4])
        x = np.full(30_000, float(group.rank))
        pair.allreduce(x)
        assert (x == (3 if group.rank in (0, 3) else 5)).all()

    run(5, rank)


def test_sums_have_the_bits_of_the_order_of_ranks(run):
    data = vectors(3, 100_003, "float32")

    def rank(group):
        x = data[group.rank].copy()
        group.allreduce(x)
        return x.tobytes()

    assert set(run(3, rank)) == {total(data).tobytes()}


@pytest.mark.parametrize("n", [5, 100_000])
def test_everybody_gives_everybody_something(n, run):
    def rank(group):
        ranks = range(group.size)
        outgoing = [np.full(n + other, 10 * group.rank + other, np.uint8) for other in ranks]
        places = [np.zeros(n + group.rank, np.uint8) for _ in ranks]
        group.exchange(outgoing, places, n)
        for other in set(ranks) - {group.rank}:
            assert (places[other] == 10 * other + group.rank).all()

    run(4, rank)


def test_what_was_started_runs_in_its_order(run):
    def rank(group):
        x, y = np.ones(50_000), np.full(3, group.rank)
        handles = [group.allreduce_start(x), group.allgather_start(y)]
        part = group.reduce_scatter_start(np.ones(group.size))
        assert part.wait().tolist() == [group.size]
        assert part.done()
        assert handles[1].wait()[:, 0].tolist() == list(range(group.size))
        for _ in range(2):
            handles[0].wait()
        group.allreduce_start(x)
        group.allreduce(x)  # after all that was started
        assert (x == group.size**3).all()

    run(3, rank)


def test_parts_of_a_communicator_keep_apart(run):
    def rank(group):
        half = group.split(group.rank % 2, key=-group.rank)
        assert half.ranks == ((4, 2, 0) if group.rank % 2 == 0 else (3, 1))
        assert len(half.hosts) == half.size
        x = np.full(1000, float(group.rank))
        half.allreduce(x)
        assert (x == (6 if group.rank % 2 == 0 else 4)).all()
        pair = half.split(0 if half.rank < 2 else None)
        assert (pair is None) == (half.rank >= 2)
        if pair is not None:
            pair.send(b"in the pair", 1 - pair.rank, tag=1)
        group.send(b"in all", (group.rank + 1) % 5, tag=1)
        assert group.recv((group.rank - 1) % 5, tag=1).payload == b"in all"
        if pair is not None:
            assert pair.recv(tag=1).payload == b"in the pair"

    run(5, rank)


def test_hosts_are_numbered_by_their_first_ranks(run):
    def rank(group):
        reversed_ = group.split(0, key=-group.rank)
        return group.hosts, reversed_.hosts

    hosts = run(3, rank)
    assert hosts == [hosts[0]] * 3
    assert hosts[0] in [((0, 0, 0), (0, 0, 0)), ((0, 1, 2), (0, 1, 2)), ((0, 0, 1), (0, 1, 1))]


def test_memory(run):
    def rank(group):
        buffer = group.buffer(group.rank * 1000, "float64")
        assert buffer.shape == (group.rank * 1000,)
        assert not buffer.any()
        vector = group.shared_vector(group.size)
        assert (vector is not None) == (set(group.hosts) == {0})
        if vector is not None:
            vector[group.rank] = group.rank + 1
            group.barrier()
            assert vector.sum() == group.size * (group.size + 1) / 2
        locked = group.locked_memory(8)
        assert locked is None or locked[0].nbytes == 8

    run(3, rank)


def test_a_message_counts_when_it_is_taken_and_not_when_it_is_read_ahead(run):
    def rank(group):
        if group.rank == 0:
            for n in (10, 20, 30):
                group.send(bytes(n), 1, tag=1)
            group.barrier()
            return None
        sizes = []
        for _ in range(3):
            group.meter.reset()
            group.recv(0, tag=1)
            sizes.append(group.meter.bytes_received)
        group.barrier()
        return sizes

    first, second, third = run(2, rank)[1]
    assert (second - first, third - second) == (10, 10)
