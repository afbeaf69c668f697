"""One table of tests for every communicator: over Unix sockets and shared memory, TCP, TLS, and in simulated time."""

import numpy as np
import pytest

from scaleml.comm import ANY, Aborted, CommError, Communicator, Mismatch, PeerLost, inprocess, simulated
from scaleml.comm.collectives import TOPOLOGIES
from vectors import total, vectors

LENGTHS = (0, 1, 2, 3, 7, 1000, 1001, 100_003, 300_001)


@pytest.fixture(params=["shared memory", "tcp", "tls", "simulated", "simulated hosts"])
def run(request):
    """A function like `inprocess.run`."""
    if request.param.startswith("simulated"):

        def on_virtual_clocks(n, function, *args):
            hosts = [rank // 2 for rank in range(n)] if "hosts" in request.param else None
            return simulated.run(n, function, *args, hosts=hosts)

        return on_virtual_clocks
    tls = request.getfixturevalue("tls") if request.param == "tls" else None

    def on_threads(n, function, *args):
        return inprocess.run(n, function, *args, shared_memory=request.param == "shared memory", tls=tls)

    return on_threads


# --- collectives ------------------------------------------------------------------------------------------------------


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
            np.testing.assert_array_equal(x, expected)
            x[:] = data[group.rank]
            part = group.reduce_scatter(x)
            start, stop = group.part(group.rank, n)
            np.testing.assert_array_equal(part, expected[start:stop])
            assert np.shares_memory(part, x) or not part.size
            x[:] = data[group.rank]
            np.testing.assert_array_equal(group.allgather(x), data)
            root = n % group.size
            group.broadcast(x, root)
            np.testing.assert_array_equal(x, data[root])
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
            np.testing.assert_array_equal(x, np.sum(data, axis=0))
            x = data[group.rank].copy()
            group.allreduce_start(x, topology=topology).wait()
            np.testing.assert_array_equal(x, np.sum(data, axis=0))

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
        gifts = [np.full(n + other, 10 * group.rank + other, np.uint8) for other in ranks]
        places = [np.zeros(n + group.rank, np.uint8) for _ in ranks]
        group.exchange(gifts, places, n)
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


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"bytes", bytes(300_001), np.arange(7, dtype="int32"), np.arange(100_003.0)])
def test_payloads_come_back(payload, run):
    def rank(group):
        if group.rank == 0:
            group.step, group.compute_seconds, group.control = 7, 0.5, 3
            group.send(payload, 1, tag=3, sequence=2**60, codec=9)
            return None
        message = group.recv(0, tag=3)
        assert group.control == 3
        return message

    message = run(2, rank)[1]
    assert message[:7] == (0, 3, 2**60, 7, 3, 0.5, 9)
    np.testing.assert_array_equal(message.payload, payload)


def test_messages_of_one_tag_keep_their_order(run):
    def rank(group):
        if group.rank == 0:
            for n in (100_000, 1, 0, 50_000):
                group.send(np.full(n, n), 1, tag=1)
                group.send(bytes(n), 1, tag=2)
            return
        assert [len(group.recv(tag=2).payload) for _ in range(4)] == [100_000, 1, 0, 50_000]
        assert [group.recv(0, tag=1).array.size for _ in range(4)] == [100_000, 1, 0, 50_000]

    run(2, rank)


def test_anybody(run):
    def rank(group):
        if group.rank:
            group.send(bytes([group.rank]), 0)
            return None
        return sorted(group.recv(ANY).payload[0] for _ in range(4))

    assert run(5, rank)[0] == [1, 2, 3, 4]


def test_poll(run):
    def rank(group):
        if group.rank == 0:
            assert not group.poll(1)
            group.send(b"go", 1)
            while not group.poll(1, seconds=0.01):
                pass
            assert group.poll(1)
            assert not group.poll(2)
            assert group.recv(tag=1).payload == b"gone"
            assert not group.poll(1)
        else:
            group.recv()
            group.send(b"gone", 0, tag=1)

    run(2, rank)


def test_into_an_array(run):
    def rank(group):
        if group.rank == 0:
            for _ in range(3):
                group.send(np.arange(1000, dtype="float32"), 1)
            return
        out = np.zeros((2, 500), "float32")
        assert group.recv(out=out).payload is out
        np.testing.assert_array_equal(out.reshape(-1), np.arange(1000))
        pending = group.recv_start(0, out=np.zeros(1000, "float32"))
        assert pending.wait().array[999] == 999
        with pytest.raises(ValueError, match="`out` must be contiguous"):
            group.recv(out=np.zeros(1000, "int32"))

    run(2, rank)


def test_all_start_to_send_before_any_receives(run):
    """Far more than sockets hold, to both neighbours."""

    def rank(group):
        right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
        x = np.full(1_000_000, float(group.rank))
        sent = [group.send_start(x, peer, tag=tag) for tag in (1, 2) for peer in (right, left)]
        for peer in (left, right):
            assert group.recv(peer, tag=2).array[-1] == peer
        for peer in (left, right):
            assert group.recv(peer, tag=1).array[-1] == peer
        for handle in sent:
            handle.wait()
            assert handle.done()
            handle.wait()
        group.barrier()

    run(3, rank)


def test_what_was_started_goes_while_others_are_waited_for(run):
    """Rank 0 starts a long message to rank 1, which does not read it before rank 2 has heard from both."""

    def rank(group):
        if group.rank == 0:
            long = group.send_start(np.ones(1_000_000), 1)
            assert group.recv(2).payload == b"ready?"
            group.send(b"yes", 2)
            long.wait()
        elif group.rank == 1:
            assert group.recv(2).payload == b"now"
            assert group.recv(0).array.sum() == 1_000_000
        else:
            group.send(b"ready?", 0)
            assert group.recv(0).payload == b"yes"
            group.send(b"now", 1)

    run(3, rank)


def test_started_messages_and_collectives(run):
    def rank(group):
        other = 1 - group.rank
        handle = group.send_start(np.full(1_000_000, group.rank), other)
        x = np.ones(100_000)
        group.allreduce(x)
        assert (x == 2).all()
        assert group.recv(other).array[0] == other
        handle.wait()

    run(2, rank)


def test_receives_that_were_started_are_served_in_their_order(run):
    def rank(group):
        if group.rank == 0:
            for number in range(4):
                group.send(bytes([number]), 1, tag=1)
            group.send(b"other", 1, tag=2)
            group.barrier()
        else:
            first, second = group.recv_start(0, tag=1), group.recv_start(ANY, tag=1)
            other = group.recv_start(0, tag=2)
            group.barrier()
            assert other.wait().payload == b"other"
            assert not second.done()
            assert second.wait().payload == b"\1"
            assert first.done()
            assert first.wait().payload == first.wait().payload == b"\0"
            third = group.recv_start(0, tag=1)
            assert group.recv(0, tag=1).payload == b"\3"
            assert third.wait().payload == b"\2"

    run(2, rank)


# --- commands ---------------------------------------------------------------------------------------------------------


def test_announcements_and_control_words(run):
    def rank(group):
        if group.rank == 0:
            group.announce(1, b"one")
            group.allreduce(np.zeros(3))
            group.announce(2, b"two")
            group.send(b"x", 1)
        else:
            group.allreduce(np.zeros(3))
            assert group.control >= 1
            if group.rank == 1:
                assert group.recv(0).control == 2
            assert group.await_announcement(2, forever=True) == b"two"
            assert group.await_announcement(1) == b"one"
        group.barrier()
        assert group.control == 2
        group.raise_control(1)
        assert group.control == 2
        group.raise_control(5)
        assert group.control == 5

    run(3, rank)


def test_rank_0_cannot_wait_for_its_own_announcement(run):
    with pytest.raises(CommError, match="has not made announcement 5"):
        run(2, lambda group: group.await_announcement(5) if group.rank == 0 else None)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_ranks_in_different_collectives_are_told(run):
    def lengths(group):
        group.allreduce(np.zeros(10 + group.rank))

    def operations(group):
        if group.rank:
            group.allreduce(np.zeros(10))
        else:
            group.barrier()

    for work in (lengths, operations):
        with pytest.raises(Mismatch, match="number 1") as caught:
            run(2, work)
        assert caught.value.peer == 1 - caught.value.rank


@pytest.mark.parametrize("call", [lambda g: g.send(b"", 0), lambda g: g.recv(-3), lambda g: g.broadcast(np.ones(1), 9)])
def test_ranks_that_are_none_are_refused(call, run):
    with pytest.raises(ValueError, match=r"must be another rank|is no rank"):
        run(2, lambda group: call(group) if group.rank == 0 else None)


def test_what_cannot_travel_is_refused(run):
    for x in (np.zeros((4, 4))[:, ::2], np.zeros(3, "float16"), [1.0]):
        with pytest.raises(ValueError, match="contiguous NumPy array"):
            run(1, lambda group, x=x: group.allreduce(x))


def test_who_left_is_named(run):
    def rank(group):
        if group.rank == 1:
            group.send(b"last words", 0)
            group.close()
            return
        if group.rank == 0:
            assert group.recv().payload == b"last words"
        with pytest.raises(PeerLost, match=f"rank {group.rank} lost rank 1") as caught:
            group.recv(1)
        assert (caught.value.rank, caught.value.peer) == (group.rank, 1)
        if group.rank == 0:
            with pytest.raises(PeerLost):
                group.barrier()
        group.close()

    run(3, rank)


def test_abort_and_close(run):
    def rank(group):
        group.barrier()
        if group.rank == 0:
            group.abort("enough")
            for call in (group.barrier, group.check, lambda: group.send(b"", 1), group.recv):
                with pytest.raises(Aborted, match="rank 0 was aborted at step 0: enough"):
                    call()
        else:
            with pytest.raises(PeerLost):
                group.recv(0)
        group.close()
        group.close()
        with pytest.raises(CommError):
            group.barrier()

    run(2, rank)


def test_the_root_cause_is_raised(run):
    def rank(group):
        if group.rank == 1:
            raise ZeroDivisionError("the cause")
        group.barrier()

    with pytest.raises(ZeroDivisionError, match="the cause"):
        run(3, rank)


def test_all_is_there(run):
    """Every public name of the contract."""
    names = [name for name in dir(Communicator) if not name.startswith("_")]

    def rank(group):
        assert group.timeout > 0
        assert not group.is_emulated
        assert [name for name in names if not hasattr(group, name)] == []

    run(2, rank)
