"""Messages between ranks, announcements, the meter."""

import threading

import numpy as np
import pytest

from scaleml.comm import ANY, CommError, PeerLost, inprocess
from scaleml.comm.conventions import INLINE
from scaleml.comm.transport import frame


def pair(**way):
    return inprocess.groups(2, **way)


def close(groups):
    for group in groups:
        group.close()


@pytest.mark.parametrize(
    "payload",
    [b"", b"bytes", bytes(300_001), *(np.arange(n, dtype=d) for n in (0, 1, 7, 100_003) for d in ("f4", "f8", "i4", "i8", "u1"))],
    ids=lambda p: f"{type(p).__name__}-{len(p)}",
)  # fmt: skip
def test_payloads_come_back(payload, way):
    def rank(group):
        if group.rank == 0:
            group.send(payload, 1, tag=3, sequence=2**60, codec=9)
            return None
        return group.recv(0, tag=3)

    message = inprocess.run(2, rank, **way)[1]
    assert (message.source, message.tag, message.sequence, message.codec) == (0, 3, 2**60, 9)
    if isinstance(payload, bytes):
        assert message.payload == payload
    else:
        np.testing.assert_array_equal(message.payload, payload)
        assert message.payload.dtype == payload.dtype
        message.payload[:] = 1  # a fresh array


def test_the_sender_stamps_its_frames(way):
    a, b = pair(**way)
    a.step, a.compute_seconds, a.control = 7, 0.5, 3
    a.send(b"x", 1)
    message = b.recv()
    assert (message.step, message.compute_seconds, message.control) == (7, 0.5, 3)
    assert b.control == 3
    close((a, b))


def test_tags_and_groups_keep_apart(way):
    def rank(group):
        other = group.split(0)
        if group.rank == 0:
            for n in (1, 100_000):
                group.send(np.full(n, 1.0), 1, tag=1)
                group.send(np.full(n, 2.0), 1, tag=2)
                other.send(np.full(n, 3.0), 1, tag=1)
            group.allreduce(np.zeros(10))
        else:
            group.allreduce(np.zeros(10))
            for _ in range(2):
                assert other.recv(0, tag=1).payload[0] == 3
                assert group.recv(0, tag=2).payload[0] == 2
                assert group.recv(0, tag=1).payload[0] == 1

    inprocess.run(2, rank, **way)


def test_everybody_sends_first(way):
    """Nobody reads while all send far more than sockets hold."""

    def rank(group):
        x = np.full(1_000_000, float(group.rank))
        for _ in range(3):
            group.send(x, (group.rank + 1) % group.size)
        for _ in range(3):
            assert group.recv((group.rank - 1) % group.size).payload[-1] == (group.rank - 1) % group.size

    inprocess.run(3, rank, **way)


def test_anybody_gets_a_turn(way):
    """Two ranks that always have something to say: neither is heard twice while the other waits."""
    first, *others = groups = inprocess.groups(3, **way)
    for _ in range(5):
        for group in others:
            group.send(b"x", 0)
    order = [first.recv(ANY).source for _ in range(10)]
    assert sorted(order) == [1] * 5 + [2] * 5
    assert all({a, b} == {1, 2} for a, b in zip(order[::2], order[1::2], strict=True))
    close(groups)


def test_poll_tells_whether_recv_would_wait(way):
    a, b = pair(**way)
    assert not b.poll(1)
    a.send(b"other", 1, tag=2)
    a.send(b"this", 1, tag=1)
    while not b.poll(1):
        pass
    assert b.poll(1)
    assert b.poll(2)
    assert not b.poll(3)
    assert b.recv(tag=1).payload == b"this"
    assert not b.poll(1)
    assert b.recv(tag=2).payload == b"other"
    close((a, b))


def test_into_an_array(way):
    a, b = pair(**way)
    out = np.zeros((2, 500), "float32")
    for early in (False, True):
        a.send(np.arange(1000, dtype="float32"), 1, tag=1)
        if early:
            a.send(b"", 1, tag=2)
            b.recv(tag=2)
        assert b.recv(tag=1, out=out).payload is out
        np.testing.assert_array_equal(out.reshape(-1), np.arange(1000))
        out[:] = 0
    for wrong in (np.zeros(999, "float32"), np.zeros(1000, "int32"), np.zeros((2, 1000), "float32")[:, ::2]):
        a.send(np.arange(1000, dtype="float32"), 1)
        with pytest.raises(ValueError, match="`out` must be contiguous"):
            b.recv(out=wrong)
        b.recv()
    close((a, b))


def test_shared_memory_is_seen_not_copied():
    def rank(group):
        n = 100_000
        buffer = group.buffer(n if group.rank == 0 else 0)
        if group.rank == 0:
            buffer[:] = np.arange(n)
            group.meter.reset()
            group.send(buffer[1000:], 1)
            assert group.meter.bytes_sent > 4 * (n - 1000)
            group.send(buffer[1000:], 1)
            group.send(buffer[1000:], 1)
            group.recv(1)
            buffer[:] = -1
            group.send(b"changed", 1)
            group.recv(1)
        else:
            view = group.recv(view=True).payload
            copy = group.recv().payload
            out = np.empty(n - 1000, "float32")
            group.recv(out=out)
            for array in (view, copy, out):
                np.testing.assert_array_equal(array, np.arange(1000, n))
            assert not view.flags.writeable
            group.send(b"read", 0)
            group.recv()
            assert (view == -1).all()
            assert copy[0] == out[0] == 1000
            group.send(b"done", 0)

    inprocess.run(2, rank)


def test_small_slices_of_a_buffer_are_copied_at_once():
    def rank(group):
        buffer = group.buffer(INLINE, "uint8")
        if group.rank == 0:
            buffer[:] = 1
            group.send(buffer, 1)
            buffer[:] = 2
            group.barrier()
        else:
            group.barrier()
            assert (group.recv().payload == 1).all()

    inprocess.run(2, rank)


@pytest.mark.parametrize(
    "call", [lambda g: g.send(b"", 0), lambda g: g.send(b"", 2), lambda g: g.recv(0), lambda g: g.recv(-3)]
)
def test_ranks_that_are_none_are_refused(call):
    groups = pair()
    with pytest.raises(ValueError, match="must be another rank"):
        call(groups[0])
    close(groups)


def test_announcements_reach_everybody(way):
    def rank(group):
        if group.rank == 0:
            group.announce(1, b"one")
            group.allreduce(np.zeros(3))
            group.announce(2, b"two")
            group.send(b"x", 1)
            group.barrier()
        else:
            group.allreduce(np.zeros(3))
            assert group.control == 1
            assert group.announcements[1] == b"one"
            if group.rank == 1:
                assert group.recv(0).control == 2
            assert group.await_announcement(2) == b"two"
            group.barrier()
        assert group.control == 2
        assert group.announcements == {1: b"one", 2: b"two"}

    inprocess.run(3, rank, **way)


def test_the_control_word_travels_through_others():
    a, b, c = groups = inprocess.groups(3)
    a.announce(1, b"stop")
    assert b.await_announcement(1) == b"stop"
    b.send(b"hello", 2)
    assert c.recv(1).control == 1
    assert c.control == 1
    assert c.await_announcement(1) == b"stop"
    close(groups)


def test_rank_0_cannot_wait_for_its_own_announcement():
    groups = pair()
    with pytest.raises(CommError, match="has not made announcement 5"):
        groups[0].await_announcement(5)
    close(groups)


def test_a_pause_outlasts_the_timeout():
    stalls = []
    a, b = inprocess.groups(2, timeout=0.05, on_stall=lambda *args: stalls.append(args) or False)
    heard = []
    thread = threading.Thread(target=lambda: heard.append(b.await_announcement(1, forever=True)))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    a.announce(1, b"resume")
    thread.join()
    assert heard == [b"resume"]
    assert not stalls
    close((a, b))


def test_a_server_goes_on_when_a_worker_left():
    server, first, second = groups = inprocess.groups(3)
    first.send(b"last words", 0)
    first.close()
    assert server.recv().payload == b"last words"
    with pytest.raises(PeerLost, match="lost rank 1") as caught:
        server.recv()
    assert caught.value.peer == 1
    assert server.lost == {1}
    second.send(b"still here", 0)
    assert server.recv().payload == b"still here"
    second.close()
    for _ in range(2):
        with pytest.raises(PeerLost):
            server.recv()
    close(groups)


def test_waiting_is_put_down_to_the_peer_that_was_late():
    ready = threading.Event()

    def rank(group):
        group.barrier()
        group.meter.reset()
        if group.rank == 2:
            ready.wait()
        elif group.rank == 0:
            threading.Timer(0.05, ready.set).start()
        group.allreduce(np.zeros(10))
        return group.meter.waited, group.meter.wait, group.meter.comm

    waited, wait, comm = inprocess.run(3, rank)[0]
    assert waited[2] == wait >= 0.03
    assert waited[0] == waited[1] == 0
    assert comm < wait


def test_the_way_through_memory_counts_as_much_as_that_through_sockets():
    def rank(group):
        x = group.buffer(100_000)
        group.meter.reset()
        group.allreduce(x)
        return group.meter.bytes_sent

    for shared in (True, False):
        assert inprocess.run(2, rank, shared_memory=shared) == pytest.approx([400_000] * 2, rel=0.01)


def test_a_message_that_was_put_aside_in_pieces_is_not_overtaken():
    groups = inprocess.groups(2)
    channel, group, payload = groups[1].mesh.channel, groups[1].members.number, bytes(100)
    keys = [frame.Key(group, number, 0, frame.BYTES, tag=1) for number in range(3)]
    raw = [channel.links[0].numbered(channel.header(key, payload, kind=frame.MESSAGE)) + payload for key in keys]
    sock = channel.links[0].sock
    sock.sendall(raw[0][:-10])
    assert not groups[0].poll(tag=2)  # which read what was there of the first
    sock.sendall(raw[0][-10:] + raw[1] + raw[2])
    assert [groups[0].recv(tag=1).sequence for _ in range(3)] == [0, 1, 2]
    close(groups)
