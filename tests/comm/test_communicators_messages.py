"""The table of tests for every communicator: messages, commands, errors."""

import numpy as np
import pytest

from scaleml.comm import ANY, Aborted, CommError, Communicator, Mismatch, PeerLost

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


@pytest.mark.parametrize("ranks", [3, 8])
@pytest.mark.parametrize("topology", ["none", "small", "direct", "ring", "halving"])
@pytest.mark.parametrize("first", [True, False])
def test_what_was_started_goes_while_a_collective_waits(run, ranks, topology, first):
    """The last rank reads a long message before it joins the collective, in which its sender is already, or after it."""

    def rank(group):
        last = group.size - 1
        if group.rank == 1:
            handle = group.send_start(np.ones(5_000_000), last)
        if group.rank == last and first:
            assert group.recv(1).array.sum() == 5_000_000
        if topology == "none":
            group.barrier()
        else:
            x = np.ones(3 if topology == "small" else 50_000)
            group.allreduce(x, "direct" if topology == "small" else topology)
            assert (x == group.size).all()
        if group.rank == last and not first:
            assert group.recv(1).array.sum() == 5_000_000
        if group.rank == 1:
            handle.wait()

    run(ranks, rank)


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
